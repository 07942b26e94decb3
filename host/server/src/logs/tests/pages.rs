//! Reading in pages, and what is refused.

use std::collections::HashSet;

use tovuk_kernel::ids::{BuildId, DeployId};
use tovuk_kernel::limits::{LOG_EVENT_BYTES, LOG_PAGE_BYTES_MAX};

use super::*;
use crate::logs::Error;

fn texts(page: &Page) -> Vec<&str> {
    page.lines.iter().map(|line| line.message.as_str()).collect()
}

#[tokio::test]
async fn pages_lead_from_the_newest_lines_to_the_oldest_and_each_line_is_in_one() {
    let folder = TempDir::new().unwrap();
    let logs = open(folder.path());
    for number in 0..25 {
        logs.sink().line(line("service_1", number.to_string()));
        logs.sink().line(line("service_2", "of another"));
    }
    logs.flush().await;
    let first = read(&logs, "service_1", 10, None).await;
    assert_eq!(texts(&first), (15..25).map(|number| number.to_string()).collect::<Vec<_>>(), "the newest, oldest first");
    let second = read(&logs, "service_1", 10, first.next_cursor.as_deref()).await;
    assert_eq!(texts(&second)[0], "5");
    let third = read(&logs, "service_1", 10, second.next_cursor.as_deref()).await;
    assert_eq!(texts(&third), ["0", "1", "2", "3", "4"]);
    assert!(first.has_more && second.has_more && !third.has_more);
    assert_eq!(third.next_cursor, None);
    let exact = read(&logs, "service_1", 25, None).await;
    assert!(!exact.has_more && exact.next_cursor.is_none());
}

#[tokio::test]
async fn a_follower_sees_every_line_once_and_in_order() {
    let folder = TempDir::new().unwrap();
    let logs = open(folder.path());
    let mut page = read(&logs, "service_1", 10, None).await;
    let mut seen = Vec::new();
    for round in 0..5 {
        for number in 0..round * 7 {
            logs.append(vec![line("service_1", format!("{round}-{number}"))]).await.unwrap();
        }
        loop {
            page = read(&logs, "service_1", 10, Some(&page.follow_cursor)).await;
            seen.extend(page.lines.iter().map(|line| line.message.clone()));
            if !page.has_more {
                break;
            }
            assert_eq!(page.next_cursor.as_ref(), Some(&page.follow_cursor));
        }
    }
    let wanted: Vec<_> = (0..5).flat_map(|round| (0..round * 7).map(move |number| format!("{round}-{number}"))).collect();
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn lines_of_deploys_and_builds_are_found_by_them_and_by_their_service() {
    let folder = TempDir::new().unwrap();
    let logs = open(folder.path());
    let mut lines = Vec::new();
    for number in 1..=2 {
        let (deploy, build) = (DeployId::from(format!("deploy_{number}")), BuildId::from(format!("job_{number}")));
        let of = |stream, message: String| Line::new(service("service_1"), AccountId::from("account_1"), stream, message).deploy(deploy.clone());
        lines.push(of(Stream::Build, format!("checks of {number}")).build(build));
        lines.push(of(Stream::Deploy, format!("promoted {number}")));
    }
    logs.append(lines).await.unwrap();
    logs.append(vec![line("service_1", "hello")]).await.unwrap();
    let query = Query::default();
    let deploy = logs.read(Subject::Deploy(service("service_1"), DeployId::from("deploy_2")), &query).await.unwrap();
    assert_eq!(texts(&deploy), ["checks of 2", "promoted 2"]);
    assert_eq!((deploy.lines[1].stream, deploy.lines[1].deploy_id.as_deref()), ("deploy", Some("deploy_2")));
    let build = logs.read(Subject::Build(service("service_1"), BuildId::from("job_1")), &query).await.unwrap();
    assert_eq!(texts(&build), ["checks of 1"]);
    let elsewhere = logs.read(Subject::Build(service("service_2"), BuildId::from("job_1")), &query).await.unwrap();
    assert!(elsewhere.lines.is_empty() && !elsewhere.has_more);
    assert_eq!(messages(&logs, "service_1").await.len(), 5);
}

#[tokio::test]
async fn what_was_appended_is_there_after_a_restart_and_ids_go_on_rising() {
    let folder = TempDir::new().unwrap();
    let mut page = None;
    for round in 0..3 {
        let logs = open(folder.path());
        logs.append(vec![line("service_1", round.to_string())]).await.unwrap();
        let now = read(&logs, "service_1", 10, page.as_ref().map(|page: &Page| page.follow_cursor.as_str())).await;
        assert_eq!(texts(&now), [round.to_string()]);
        page = Some(now);
        logs.sink().line(line("service_2", format!("queued {round}")));
        logs.close().await;
        logs.sink().line(line("service_2", "too late"));
    }
    let logs = open(folder.path());
    assert_eq!(messages(&logs, "service_1").await, ["0", "1", "2"]);
    assert_eq!(messages(&logs, "service_2").await, ["queued 0", "queued 1", "queued 2"], "closing writes what is queued");
}

#[tokio::test]
async fn cursors_that_were_not_given_out_and_limits_beyond_the_table_are_refused() {
    let folder = TempDir::new().unwrap();
    let logs = open(folder.path());
    for cursor in ["", "7", "before_", "before_-1", "before_+1", "before_007", "after_99999999999999999999", "beside_1", "before_1;drop"] {
        let query = Query { cursor: Some(cursor.to_owned()), ..Query::default() };
        let error = logs.read(Subject::Service(service("service_1")), &query).await.unwrap_err();
        assert_eq!((error.code().code, error.code().status), ("invalid_cursor", 400), "{cursor}");
    }
    for limit in [0, 1_001] {
        let error = logs.read(Subject::Service(service("service_1")), &Query { limit: Some(limit), ..Query::default() }).await.unwrap_err();
        assert!(matches!(error, Error::Limit) && error.code().status == 400);
    }
}

#[tokio::test]
async fn long_lines_are_cut_and_pages_of_them_stay_small() {
    let folder = TempDir::new().unwrap();
    let logs = open(folder.path());
    logs.append((0..40).map(|number| line("service_1", format!("{number:02}{}", "ü".repeat(LOG_EVENT_BYTES)))).collect()).await.unwrap();
    let (mut seen, mut cursor) = (HashSet::new(), None);
    loop {
        let page = read(&logs, "service_1", 1_000, cursor.as_deref()).await;
        assert!(!page.lines.is_empty() && page.lines.iter().map(|line| line.message.len()).sum::<usize>() <= LOG_PAGE_BYTES_MAX);
        for line in &page.lines {
            assert!(line.message.len() <= LOG_EVENT_BYTES && line.message.ends_with("ü … (cut)"));
            seen.insert(line.message[..2].to_owned());
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 40);
}

#[tokio::test]
async fn times_are_written_as_rfc_3339_in_utc_with_milliseconds() {
    let folder = TempDir::new().unwrap();
    let clock = Clock::advanceable();
    let logs = Logs::open(folder.path(), clock.clone()).unwrap();
    let before = clock.now_unix_ms();
    logs.append(vec![line("service_1", "now")]).await.unwrap();
    let page = serde_json::to_value(read(&logs, "service_1", 1, None).await).unwrap();
    let text = page["lines"][0]["timestamp"].as_str().unwrap();
    assert_eq!((text.len(), &text[text.len() - 1..]), ("2026-05-31T00:00:00.123Z".len(), "Z"));
    let written: jiff::Timestamp = text.parse().unwrap();
    assert!((before..=clock.now_unix_ms()).contains(&u64::try_from(written.as_millisecond()).unwrap()));
    assert_eq!(page["lines"][0]["stream"], "stdout");
    assert_eq!(page["has_more"], false);
}
