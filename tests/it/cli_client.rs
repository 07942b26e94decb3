//! The client against a real host: the commands as documents have them, what they print, how they fail, and which host gets which token.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use tovuk_tests::{Dev, Project, Serve, ran, tovuk};

use crate::TOVUK;

#[tokio::test]
async fn the_documents_commands_of_services_and_bindings_run_verbatim() {
    let host = Serve::start(TOVUK).await;
    host.line("tovuk service create caller").ok();
    host.line("tovuk service create auth-service").ok();
    let bound = host.line("tovuk binding create --service service_1 AUTH_SERVICE --target auth-service --json").ok().json();
    assert_eq!(bound["serviceBindings"][0]["targetServiceId"], "service_2");
    assert_eq!(bound["serviceBindings"][0]["env"], "TOVUK_BINDING_AUTH_SERVICE");
    let shown = host.line("tovuk service show service_1 --json").ok().json();
    assert_eq!(shown["resources"]["serviceBindings"][0]["name"], "AUTH_SERVICE");
    for part in
        ["status", "deploys", "builds", "logs", "env", "domains", "resources", "capabilities", "accountUsage", "billingEstimate", "next_actions"]
    {
        assert!(!shown[part].is_null(), "{part}");
    }
    let shown = host.line("tovuk service show service_1").ok().stdout;
    for part in ["caller (service_1)", "enabled ", "serviceBindings 1", "usage ", "next: Run `tovuk deploy`"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let listed = host.line("tovuk service list").ok().stdout;
    for part in ["NAME", "KIND", "STATUS", "URL", "ENABLED", "DISABLED", "RESOURCES", "rust_worker", "not_deployed", "serviceBindings 1"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let deleted = host.line("tovuk binding delete --service service_1 AUTH_SERVICE --json").ok().json();
    assert_eq!(deleted["serviceBindings"], json!([]));
    let domain = host.line("tovuk domains add --service service_1 api.example.com --json").ok().json();
    assert_eq!((&domain["status"], &domain["dns_record_type"]), (&json!("pending"), &json!("CNAME")));
    // Flags may stand before the words.
    host.line("tovuk binding --service service_1 create NEXT --target auth-service").ok();
    let listed = host.line("tovuk --service caller --json binding list").ok().json();
    assert_eq!(listed["serviceBindings"][0]["name"], "NEXT", "{listed}");
    for line in [
        "tovuk pricing --json",
        "tovuk usage --json",
        "tovuk --json service",
        "tovuk account show --limit 5 --cursor x --json",
        "tovuk service delete --service caller --json",
    ] {
        assert!(host.line(line).ok().json().is_object(), "{line}");
    }
}

#[tokio::test]
async fn secrets_are_set_and_never_shown() {
    let host = Serve::start(TOVUK).await;
    host.line("tovuk service create shop").ok();
    for text in [
        host.line("tovuk env set KEY=hunter2=x --service shop"),
        host.line("tovuk env --service shop"),
        host.line("tovuk env list --service shop --json"),
    ] {
        let text = text.ok().stdout;
        assert!(text.contains("KEY") && !text.contains("hunter2"), "{text}");
    }
    let refused = host.line("tovuk env set hunter2 --service shop").refused();
    assert!(!refused.stderr.contains("hunter2"), "{refused:?}");
    assert!(!host.line("tovuk env delete KEY --service shop").ok().stdout.contains("KEY"));
}

#[tokio::test]
async fn a_failure_says_what_to_do_next_and_whose_fault_it_is() {
    let mut host = Serve::start(TOVUK).await;
    let refused = host.line("tovuk service show nope --json").refused();
    assert_eq!(refused.stdout, "");
    let failure = refused.failure();
    assert_eq!(failure["code"], "service_not_found");
    for key in ["message", "agent_instruction", "docs_url", "checkout_url", "request_id"] {
        assert!(failure.as_object().unwrap().contains_key(key), "{key}");
    }
    let refused = host.line("tovuk service show nope").refused().stderr;
    assert!(
        refused.starts_with("error: there is no service `nope`") && refused.contains("agent_instruction: Run `tovuk service list`."),
        "{refused}"
    );
    assert!(host.line("tovuk servic list").refused().stderr.contains("'service'"));
    assert!(host.line("tovuk binding list").refused().stderr.contains("agent_instruction: Add `--service <name>`"));
    assert_eq!(host.line("tovuk binding list --json").refused().failure()["code"], "missing_service");
    let nobody = ran(host.anonymous(&["service", "list"])).refused().stderr;
    assert!(nobody.contains("tovuk login"), "{nobody}");
    let wrong = host.line("tovuk service list --token tovuk_wrong --json").refused().failure();
    assert_eq!(wrong["code"], "unauthorized");
    // Without a token, also a stale one: nothing needs it.
    ran(host.anonymous(&["status", "--token", "tovuk_wrong"])).ok();
    let help = host.cli(&[]).ok().stdout;
    assert!(help.contains("service") && help.contains("deploy"), "{help}");
    assert!(host.stop().await.success());
    let gone = host.line("tovuk service list --json").refused().failure();
    assert_eq!(gone["code"], "api_unreachable");
}

#[test]
fn what_fails_on_this_side_is_json_as_well() {
    let project = Project::new(&[("tovuk.toml", "[services.a]\nassets = \".\"\nrout = [\"/*\"]\n"), ("empty/x", ""), ("half/api/Cargo.toml", "")]);
    let here = |arguments: &[&str]| {
        let mut command = tovuk(TOVUK, arguments);
        command.current_dir(project.path()).env("HOME", project.path());
        ran(command)
    };
    for command in ["check", "deploy", "dev"] {
        let refused = here(&[command, "--json"]).refused();
        let failure = refused.failure();
        assert_eq!((&failure["code"], refused.stdout.as_str()), (&json!("invalid_config"), ""), "{command}");
        let problem = &failure["problems"][0];
        assert_eq!((&problem["line"], &problem["column"], &problem["severity"]), (&json!(3), &json!(1), &json!("error")), "{failure}");
        assert!(here(&[command]).refused().stderr.contains("tovuk.toml:3:1"), "{command}");
        assert_eq!(here(&[command, "empty", "--json"]).refused().failure()["code"], "missing_project", "{command}");
    }
    let made = here(&["new", "made", "--template", "static", "--json"]).ok().json();
    assert_eq!((&made["directory"], &made["service"], &made["template"]), (&json!("made"), &json!("made"), &json!("static")));
    for (arguments, code) in [
        (["new", "made", "--template", "static", "--json"].as_slice(), "file_exists"),
        (&["new", "more", "--template", "statc", "--json"], "invalid_template"),
        (&["new", "half", "--json"], "fullstack_roots_missing"),
        (&["deploy", "--database", "--json"], "deploy_database_flag_removed"),
    ] {
        let failure = here(arguments).refused().failure();
        assert_eq!(failure["code"], code);
        assert!(failure["agent_instruction"].as_str().is_some_and(|next| !next.is_empty()), "{failure}");
    }
    assert!(here(&["deploy", "--no-database", "empty"]).refused().stderr.contains("there is no tovuk.toml"));
    std::fs::remove_file(project.path().join("tovuk.toml")).unwrap();
    std::fs::write(project.path().join("index.html"), "").unwrap();
    here(&["--json", "new"]).ok();
    assert!(project.path().join("tovuk.toml").is_file());
    assert_eq!(here(&["-v"]).ok().stdout, here(&["--version"]).ok().stdout);
}

#[tokio::test]
async fn a_host_that_fails_is_exit_2() {
    let host = Serve::start(TOVUK).await;
    let broken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let api = format!("http://{}", broken.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = broken.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let body = r#"{"code":"storage_failed","message":"no room"}"#;
        let _ = write!(stream, "HTTP/1.1 503 x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    });
    let failed = host.cli(&["--api", &api, "service", "list"]);
    assert_eq!(failed.code, 2, "{failed:?}");
    assert_eq!(failed.stderr, "error: no room\n");
}

#[tokio::test]
async fn a_token_is_stored_for_one_host_and_goes_to_no_other() {
    let host = Serve::start(TOVUK).await;
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = format!("http://{}", other.local_addr().unwrap());
    ran(host.anonymous(&["login", "--token", &host.token()])).ok();
    assert_eq!(ran(host.anonymous(&["token", "list", "--json"])).ok().json()["tokens"][0]["scope"], "operator");
    let elsewhere = ran(host.anonymous(&["service", "list", "--api", &other, "--json"])).refused();
    // It was not even asked.
    assert_eq!(elsewhere.failure()["code"], "unauthorized");
    let sessions = host.home().join(".config/tovuk/sessions");
    let files: Vec<_> = std::fs::read_dir(&sessions).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    assert_eq!(std::fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&sessions).unwrap().permissions().mode() & 0o777, 0o700);
    ran(host.anonymous(&["logout"])).ok();
    ran(host.anonymous(&["service", "list"])).refused();
}

#[tokio::test]
async fn a_login_is_approved_by_somebody_who_has_a_token() {
    let host = Serve::start(TOVUK).await;
    let mut command = host.anonymous(&["login", "--no-browser"]);
    // Nothing that could open a browser.
    command.env("PATH", "");
    let mut login = tovuk_tests::Program::start(command);
    let line = login.line(&["tovuk login approve"]).await;
    let code = line.split_whitespace().last().unwrap().to_owned();
    host.cli(&["login", "approve", &code]).ok();
    assert!(login.ended().await.success(), "{}", login.text());
    let account: Value = ran(host.anonymous(&["account", "--json"])).ok().json();
    assert_eq!((&account["account"]["handle"], &account["token"]["scope"]), (&json!("operator"), &json!("account")));
}

#[tokio::test]
async fn operators_keep_accounts_apart() {
    let host = Serve::start(TOVUK).await;
    let made = host.line("tovuk operator account create acme --plan pro --json").ok().json();
    let token = made["token"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    host.line("tovuk service create mine").ok();
    let theirs = host.cli(&["service", "list", "--token", &token, "--json"]).ok().json();
    assert_eq!(theirs["services"], json!([]));
    host.cli(&["operator", "account", "list", "--token", &token]).refused();
    host.line("tovuk operator account suspend acme").ok();
    host.cli(&["service", "list", "--token", &token]).refused();
    host.line("tovuk operator account suspend acme --resume").ok();
    host.cli(&["service", "list", "--token", &token]).ok();
    host.line("tovuk operator account delete acme --confirm acme").ok();
    host.cli(&["service", "list", "--token", &token]).refused();
}

#[tokio::test]
async fn in_the_folder_of_a_development_loop_its_own_api_is_asked() {
    let toml = "[services.hello]\ncomponent = \"w.wasm\"\nroutes = [\"/*\"]\n";
    let project = Project::new(&[("tovuk.toml", toml)]).with_guest("w.wasm", "hello");
    let mut dev = Dev::start(TOVUK, project.path()).await;
    let here = |arguments: &[&str]| {
        let mut command = tovuk(TOVUK, arguments);
        // A token for another host, which would be refused if it were shown.
        command.current_dir(project.path()).env("HOME", project.path()).env("TOVUK_TOKEN", "tovuk_other");
        ran(command)
    };
    let listed = here(&["service", "list", "--json"]).ok();
    assert_eq!(listed.json()["services"][0]["name"], "hello");
    assert!(listed.stderr.contains("tovuk dev"), "{listed:?}");
    // What was deployed to it is asked of it as well, and what a service has said while it was.
    let deploys = here(&["deploy", "list", "--json"]).ok().json();
    let deploy = deploys["deploys"][0]["id"].as_str().unwrap_or_else(|| panic!("{deploys}")).to_owned();
    let shown = here(&["deploy", "show", &deploy, "--json"]).ok().json();
    let build = shown["build_job"]["id"].as_str().unwrap_or_else(|| panic!("{shown}"));
    for arguments in [["logs", "--build", build], ["logs", "--deploy", &deploy]] {
        // Lines are written by themselves, after the deploy that they are of is live.
        while !here(&arguments).ok().stdout.contains("live at") {}
    }
    // What does not concern a service is asked of the host that is named, or of the usual one, and not of this.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(here(&["service", "list", "--json", "--api", &format!("http://{nowhere}")]).refused().failure()["code"], "api_unreachable");
    dev.program.signal(rustix::process::Signal::TERM);
    assert!(dev.program.ended().await.success());
    assert!(!here(&["service", "list", "--json"]).refused().stderr.contains("tovuk dev` of this folder"));
}

#[tokio::test]
async fn the_doctor_names_what_to_do_for_each_thing_that_is_not_as_it_should_be() {
    let host = Serve::start(TOVUK).await;
    let checked = host.cli(&["doctor", "--json"]).ok().json();
    let checks = checked["checks"].as_array().unwrap();
    for name in ["rust", "node", "port", "disk", "kernel", "sandbox", "api", "token"] {
        assert!(checks.iter().any(|check| check["name"] == name), "{name}: {checked}");
    }
    assert!(checks.iter().all(|check| check["state"] == "ok" || check["next"].as_str().is_some_and(|next| !next.is_empty())), "{checked}");
    let nobody = ran(host.anonymous(&["doctor"])).refused().stdout;
    assert!(nobody.contains("FAIL  token") && nobody.contains("tovuk login"), "{nobody}");
}
