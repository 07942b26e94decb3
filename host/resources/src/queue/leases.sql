-- What clients have pulled and not settled, so that it is counted without passing by everything else that waits for a time.
CREATE INDEX messages_lease ON messages (queue, due, lease) WHERE lease IS NOT NULL;
