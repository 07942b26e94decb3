//! What is said of tables of queues and triggers.

use super::*;

#[test]
fn tables_that_are_lists_are_shown_as_they_are_written() {
    let text = "[services.a]\nroutes = [\"/*\"]\nqueues = [\"jobs\"]\ncrons = [\"0 0 * * *\"]\n";
    assert_snapshot!(problems(text), @r#"
    3:10 error: `services.a.queues` must be a table, not an array
        for example { jobs = { max_batch_size = 25, max_retries = 5 } }
    4:9 error: `services.a.crons` must be a table, not an array
        for example { nightly = "0 0 * * *" }
    "#);
}

#[test]
fn dead_letters_that_would_come_back_are_refused_once() {
    let text = r#"
[services.a]
routes = ["/*"]
[services.a.queues]
in = { dead_letter_queue = "y" }
y = { dead_letter_queue = "z" }
z = { dead_letter_queue = "x" }
x = { dead_letter_queue = "y" }
out = { dead_letter_queue = "end" }
end = {}
"#;
    assert_snapshot!(problems(text), @r#"
    8:27 error: dead letters of the queue `x` would come back to it: x → y → z → x
        let the last of them have no dead-letter queue
    "#);
}

#[test]
fn a_dead_letter_queue_that_is_only_named_becomes_a_pull_queue_with_a_warning() {
    let parsed = parse(EXAMPLE).unwrap();
    assert_eq!(parsed.project.services["gateway"].queues["failed_jobs"].consumer, Some(Consumer::Pull));
    assert_snapshot!(told(EXAMPLE, &parsed.warnings), @r#"
    17:21 warning: the dead-letter queue `failed_jobs` is not declared in the file; a pull queue of that name is assumed
        declare it with the table [services.gateway.queues.failed_jobs]
    "#);
}
