//! `tovuk top` on a terminal: what is to be seen there, which keys it knows, and what it leaves behind.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, ExitStatus, MasterPty, PtySize, native_pty_system};
use serde_json::json;
use tovuk_tests::Operator;

use crate::TOVUK;

const ROWS: u16 = 20;
const COLUMNS: u16 = 90;

/// The program on a terminal of its own.
struct Terminal {
    screen: Arc<Mutex<vt100::Parser>>,
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
}

impl Terminal {
    fn start(host: &Operator, arguments: &[&str]) -> Self {
        let size = PtySize { rows: ROWS, cols: COLUMNS, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(TOVUK);
        command.args(arguments);
        command.cwd(&host.data);
        command.env("HOME", &host.data);
        command.env_remove("XDG_CONFIG_HOME");
        command.env("TERM", "xterm-256color");
        command.env("TOVUK_API_BASE_URL", format!("http://{}", host.host.api_address()));
        command.env("TOVUK_TOKEN", &host.token);
        let child = pair.slave.spawn_command(command).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let (mut reader, drawn) = (pair.master.try_clone_reader().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            // Linux ends a terminal that nobody has any more with an error.
            while let Ok(read @ 1..) = reader.read(&mut bytes) {
                drawn.lock().unwrap().process(&bytes[..read]);
            }
        });
        let keys = pair.master.take_writer().unwrap();
        Self { screen, master: pair.master, keys, child }
    }

    fn shown(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Waits until the screen is as it should be.
    fn until(&self, is_so: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let shown = self.shown();
            if is_so(&shown) {
                return shown;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{shown}");
            std::thread::yield_now();
        }
    }

    fn press(&mut self, key: &[u8]) {
        self.keys.write_all(key).unwrap();
        self.keys.flush().unwrap();
    }

    /// The program has ended, and has given the terminal back.
    fn ended(mut self, was: &str) -> ExitStatus {
        let status = self.child.wait().unwrap();
        let began = Instant::now();
        while self.screen.lock().unwrap().screen().alternate_screen() {
            assert!(began.elapsed() < Duration::from_secs(60), "{}", self.shown());
        }
        let screen = self.screen.lock().unwrap();
        assert!(!screen.screen().hide_cursor());
        assert_eq!(screen.screen().contents().trim(), "", "nothing of it is left");
        assert_eq!(self.modes(), was);
        status
    }

    fn modes(&self) -> String {
        let modes = self.master.get_termios().unwrap();
        format!("{:?} {:?} {:?}", modes.input_flags, modes.output_flags, modes.local_flags)
    }
}

async fn host() -> Operator {
    let host = Operator::start(TOVUK).await;
    host.deploy(&host.token, "busy", "trap", json!({"routes": ["/*"]})).await;
    host.deploy(&host.token, "fails", "trap", json!({"routes": ["/*"]})).await;
    for path in ["/ok", "/ok", "/ok", "/ok", "/ok", "/ok"] {
        host.get("busy", path).await;
    }
    for path in ["/", "/"] {
        host.get("fails", path).await;
    }
    host
}

fn at(shown: &str, word: &str) -> Option<usize> {
    shown.lines().position(|line| line.starts_with(word))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn top_is_drawn_anew_knows_its_keys_and_leaves_the_terminal_as_it_was() {
    let host = host().await;
    let idle = native_pty_system().openpty(PtySize::default()).unwrap();
    let modes = idle.master.get_termios().unwrap();
    let was = format!("{:?} {:?} {:?}", modes.input_flags, modes.output_flags, modes.local_flags);

    let mut top = Terminal::start(&host, &["top"]);
    let shown = top.until(|shown| shown.contains("2 services: "));
    for word in ["SERVICE", "RATE/S", "ERRORS/S", "CPU %", "P50 MS", "P99 MS", "[r rate]", "q ends"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert!(top.screen.lock().unwrap().screen().alternate_screen() && top.screen.lock().unwrap().screen().hide_cursor());
    assert!(at(&shown, "busy") < at(&shown, "fails"), "{shown}");
    top.press(b"e");
    let shown = top.until(|shown| shown.contains("[e errors]") && at(shown, "fails") < at(shown, "busy"));
    assert!(shown.contains("2 services: "), "{shown}");
    // New figures are drawn.
    host.deploy(&host.token, "third", "trap", json!({"routes": ["/*"]})).await;
    host.get("third", "/ok").await;
    top.until(|shown| shown.contains("3 services: ") && at(shown, "third").is_some());
    // A key that means nothing, and the arrow keys, change nothing.
    top.press(b"x\x1b[A");
    // A smaller terminal shows fewer lines, and none twice.
    top.screen.lock().unwrap().screen_mut().set_size(8, COLUMNS);
    top.master.resize(PtySize { rows: 8, cols: COLUMNS, pixel_width: 0, pixel_height: 0 }).unwrap();
    let shown = top.until(|shown| shown.starts_with("tovuk top") && shown.contains("3 services: ") && shown.matches("SERVICE").count() == 1);
    assert!(shown.lines().count() <= 8, "{shown}");
    top.press(b"q");
    assert!(top.ended(&was).success());

    for keys in [b"\x03".as_slice(), b"Q"] {
        let mut top = Terminal::start(&host, &["top", "--all", "--sort", "p99"]);
        let shown = top.until(|shown| shown.contains("3 services: "));
        assert!(shown.contains("ACCOUNT") && shown.contains("[p p99]"), "{shown}");
        top.press(keys);
        assert!(top.ended(&was).success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn top_goes_on_while_its_host_does_not_answer_and_ends_with_a_signal() {
    let host = host().await;
    let top = Terminal::start(&host, &["top"]);
    let was = {
        let idle = native_pty_system().openpty(PtySize::default()).unwrap();
        let modes = idle.master.get_termios().unwrap();
        format!("{:?} {:?} {:?}", modes.input_flags, modes.output_flags, modes.local_flags)
    };
    top.until(|shown| shown.contains("2 services: "));
    let Operator { host, .. } = host;
    host.stop().await;
    let shown = top.until(|shown| shown.contains("not new: "));
    assert!(shown.contains("2 services: "), "what was known stays: {shown}");
    let process = rustix::process::Pid::from_raw(i32::try_from(top.child.process_id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    assert!(top.ended(&was).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_refused_is_said_without_a_screen() {
    let mut host = host().await;
    host.token = host.account("alice").await;
    let mut top = Terminal::start(&host, &["top", "--all"]);
    let shown = top.until(|shown| shown.contains("token_scope"));
    assert!(!top.child.wait().unwrap().success(), "{shown}");
    assert!(!top.screen.lock().unwrap().screen().alternate_screen());
}
