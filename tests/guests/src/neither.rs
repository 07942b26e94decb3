//! A component that exports neither HTTP world: to be refused at deploy.

wit_bindgen::generate!({
    inline: "
        package test:neither;
        world neither {
            export run: func() -> string;
        }
    ",
});

struct Worker;

impl Guest for Worker {
    fn run() -> String {
        "nobody calls this".to_owned()
    }
}

export!(Worker);
