//! The logger behind the `log` macros: one line per record, `LEVEL target: message`, on stderr, which the host adds to the service's log.
//!
//! It adds no time and no service name: the host knows both.

use std::io::Write;
use std::sync::OnceLock;

use log::{LevelFilter, Log, Metadata, Record};

struct StderrLogger;

static LEVEL: OnceLock<LevelFilter> = OnceLock::new();

/// Called at the start of each invocation, which is at the start of each instance.
pub(crate) fn install() {
    // A worker that installed a logger of its own keeps it.
    if log::set_logger(&StderrLogger).is_ok() {
        // The level is read from the environment by the first record, not here: most requests log nothing and should not pay for it.
        log::set_max_level(LevelFilter::Trace);
    }
}

/// The level that `TOVUK_LOG` names, else info.
fn level_of(setting: Option<&str>) -> LevelFilter {
    setting.and_then(|text| text.trim().parse().ok()).unwrap_or(LevelFilter::Info)
}

/// One write for each record: each is a call to the host, and lines of several records cannot mix.
fn line_of(record: &Record<'_>) -> String {
    format!("{} {}: {}\n", record.level(), record.target(), record.args())
}

impl Log for StderrLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = LEVEL.get_or_init(|| {
            let level = level_of(crate::host::var("TOVUK_LOG").as_deref());
            log::set_max_level(level);
            level
        });
        metadata.level() <= *level
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // There is nowhere to report that the log cannot be written.
            let _ = std::io::stderr().write_all(line_of(record).as_bytes());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_by_name_and_info_for_anything_else() {
        for (setting, level) in [
            (None, LevelFilter::Info),
            (Some("debug"), LevelFilter::Debug),
            (Some(" WARN "), LevelFilter::Warn),
            (Some("off"), LevelFilter::Off),
            (Some("loud"), LevelFilter::Info),
        ] {
            assert_eq!(level_of(setting), level, "{setting:?}");
        }
    }

    #[test]
    fn a_record_is_one_line() {
        let line = line_of(&Record::builder().level(log::Level::Warn).target("shop::cart").args(format_args!("{} left", 3)).build());
        assert_eq!(line, "WARN shop::cart: 3 left\n");
    }
}
