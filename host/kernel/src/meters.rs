//! The meters: what a service uses, in which unit, and when it is charged. Everything that counts, caps, prices or shows usage works from this table.

/// What a meter's figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sort {
    /// It is added up over a day and over a month.
    Counter,
    /// It is what there is at the moment, such as bytes that are stored.
    Level,
}

macro_rules! meters {
    ($($variant:ident $name:literal $unit:literal $sort:ident $doc:literal $charged:literal;)+) => {
        /// A meter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Meter {
            $(#[doc = $doc] $variant,)+
        }

        /// How many meters there are.
        pub const METERS: usize = [$($name,)+].len();

        impl Meter {
            /// All of them, in the order in which they are published.
            pub const ALL: [Self; METERS] = [$(Self::$variant,)+];

            /// Its name, as in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What one of it is.
            pub const fn unit(self) -> &'static str {
                match self { $(Self::$variant => $unit,)+ }
            }

            /// What its figure is.
            pub const fn sort(self) -> Sort {
                match self { $(Self::$variant => Sort::$sort,)+ }
            }

            /// One sentence of documentation.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $doc,)+ }
            }

            /// When it is charged, and what that which failed or was not there costs. What the host itself refused is free.
            pub const fn charged(self) -> &'static str {
                match self { $(Self::$variant => $charged,)+ }
            }
        }
    };
}

meters! {
    WorkerRequests "worker_requests" "request" Counter "Invocations of workers: requests, binding calls, deliveries." "One for each invocation that was begun, however it ended.";
    WorkerCpuMs "worker_cpu_ms" "cpu_ms" Counter "CPU time of workers, in ms." "Measured in ns and charged while it runs, each ms once it is whole; what is left of one counts with the next invocation of the service, until the host stops.";
    WorkerTransferBytes "worker_transfer_bytes" "byte" Counter "Bodies that workers answered with, in bytes." "As they leave; a body that breaks off costs what had left.";
    StaticTransferBytes "static_transfer_bytes" "byte" Counter "Static files that were sent, in bytes." "As they leave.";
    SqliteRowsRead "sqlite_rows_read" "row" Counter "Rows that SQLite read to answer." "Also by statements that failed or were rolled back, because they were read.";
    SqliteRowsWritten "sqlite_rows_written" "row" Counter "Rows that SQLite inserted, changed or deleted." "When they are committed.";
    SqliteStorageBytes "sqlite_storage_bytes" "byte" Level "SQLite databases with their backups, in bytes." "Checked before a statement or a backup is begun.";
    KvReads "kv_reads" "read" Counter "Keys of KV that were read." "One for each key, there or not; one for each key of a bulk read.";
    KvWrites "kv_writes" "write" Counter "Keys of KV that were written." "One for each key when it is committed; an increment or a comparison with a write is one, also when it finds another value.";
    KvDeletes "kv_deletes" "delete" Counter "Keys of KV that were removed." "One for each key that was named, there or not.";
    KvLists "kv_lists" "list" Counter "Pages of keys of KV that were listed." "One for each page of up to 1,000 keys.";
    KvStorageBytes "kv_storage_bytes" "byte" Level "Keys, values and metadata in KV, in bytes." "Checked before a write.";
    QueueOperations "queue_operations" "operation" Counter "Messages written, read or deleted, for each 64 KB begun." "A delivery that is tried again is read again; what expires costs nothing.";
    StateRequests "state_requests" "request" Counter "Calls of State objects, and alarms that were delivered." "One for each call of an operation or a handler, and one for each delivery of an alarm.";
    StateDurationGbMilliseconds "state_duration_gb_milliseconds" "gb_ms" Counter "How long handlers of State objects ran, in GB-milliseconds." "Wall time × 0.128 GB for each call at its end, or a second at a time where a cap applies, which stops it where there is no room; what is left of one counts with the next call of the service.";
    StateSqliteRowsRead "state_sqlite_rows_read" "row" Counter "Values of State that were read." "One for each, there or not; one for each that a list returns.";
    StateSqliteRowsWritten "state_sqlite_rows_written" "row" Counter "Values and alarms of State that were written or removed." "When they are committed.";
    StateSqliteStorageBytes "state_sqlite_storage_bytes" "byte" Level "Values of State with their keys, in bytes." "Checked before a write.";
    ObjectStorageBytes "object_storage_bytes" "byte" Level "Objects, and parts of uploads that are not complete, in bytes." "Checked when an upload begins.";
    ObjectStorageClassAOperations "object_storage_class_a_operations" "operation" Counter "Operations that list or change objects." "Lists, writes, copies, and each step of an upload in parts; removals and aborts are free, and so is what was refused for its rights.";
    ObjectStorageClassBOperations "object_storage_class_b_operations" "operation" Counter "Operations that read an object." "One for each read of an object or of its description, there or not.";
    ObjectStorageEgressBytes "object_storage_egress_bytes" "byte" Counter "Objects that were sent, in bytes." "As they leave the host; what a worker reads does not leave it.";
    BuildMinutes "build_minutes" "minute" Counter "Time that builds ran, in minutes." "Rounded up for each build, also one that failed.";
    LogEvents "log_events" "event" Counter "Lines that services wrote and the host kept." "One for each line; what was dropped costs nothing.";
}

impl Meter {
    /// The meter of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|meter| meter.as_str() == name)
    }

    /// Its place in [`Meter::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Over which time usage is added up and capped, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the next.
    Month,
}

impl Period {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Day, Self::Month];

    /// Its name, as in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The period of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meters_are_those_of_the_wire() {
        let published = "worker_requests, worker_cpu_ms, worker_transfer_bytes, static_transfer_bytes, sqlite_rows_read, sqlite_rows_written, \
            sqlite_storage_bytes, kv_reads, kv_writes, kv_deletes, kv_lists, kv_storage_bytes, queue_operations, state_requests, \
            state_duration_gb_milliseconds, state_sqlite_rows_read, state_sqlite_rows_written, state_sqlite_storage_bytes, object_storage_bytes, \
            object_storage_class_a_operations, object_storage_class_b_operations, object_storage_egress_bytes, build_minutes, log_events";
        assert_eq!(published.split(", ").map(str::trim).collect::<Vec<_>>(), Meter::ALL.map(Meter::as_str));
        for (index, meter) in Meter::ALL.into_iter().enumerate() {
            assert_eq!((Meter::named(meter.as_str()), meter.index()), (Some(meter), index));
            assert_eq!(meter.sort() == Sort::Level, meter.as_str().ends_with("storage_bytes"));
        }
    }
}
