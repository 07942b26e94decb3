//! Following: lines from before, lines as they come, those that were asked for, and what ends it.

use tovuk_kernel::limits::LOG_FOLLOWERS_ACCOUNT_MAX;
use tovuk_runtime::trace::TraceId;

use super::*;
use crate::logs::{Error, Following};

fn follow(logs: &Logs, query: Query) -> Following {
    logs.follow(1, Subject::Service(service("service_1")), &query).unwrap()
}

async fn next(following: &mut Following) -> Vec<String> {
    let lines = following.next().await.unwrap().unwrap();
    assert!(lines.iter().all(|line| line.cursor.is_some()));
    lines.into_iter().map(|line| line.message).collect()
}

#[tokio::test]
async fn whoever_follows_gets_the_last_lines_and_then_every_new_one_in_order() {
    let folder = TempDir::new().unwrap();
    let logs = open(folder.path());
    logs.append((0..20).map(|number| line("service_1", format!("before {number}"))).collect()).await.unwrap();
    let mut all = follow(&logs, Query { limit: Some(2), ..Query::default() });
    assert_eq!(next(&mut all).await, ["before 18", "before 19"]);
    let mut new = follow(&logs, Query { limit: Some(0), ..Query::default() });
    assert!(new.now().await.unwrap().unwrap().is_empty());
    // Both wait, and are woken; a flood that comes meanwhile is read to its end.
    let (waiting, also) = tokio::join!(next(&mut all), async {
        logs.append(vec![line("service_2", "another's")]).await.unwrap();
        logs.append(vec![line("service_1", "one")]).await.unwrap();
        next(&mut new).await
    });
    assert_eq!((waiting, also), (vec!["one".to_owned()], vec!["one".to_owned()]));
    logs.append((0..2_500).map(|number| line("service_1", format!("{number}"))).collect()).await.unwrap();
    let mut read = Vec::new();
    while read.len() < 2_500 {
        read.extend(next(&mut all).await);
    }
    assert_eq!(read, (0..2_500).map(|number| number.to_string()).collect::<Vec<_>>());
    // The cursor of a line leads to what comes after it.
    let page = follow(&logs, Query { limit: Some(3), ..Query::default() }).now().await.unwrap().unwrap();
    let mut after = follow(&logs, Query { cursor: page[1].cursor.clone(), ..Query::default() });
    assert_eq!(next(&mut after).await, ["2499"]);
}

#[tokio::test]
async fn pages_and_followers_have_what_was_asked_for_alone() {
    let folder = TempDir::new().unwrap();
    let logs = open(folder.path());
    let (wanted, other) = (TraceId::random(), TraceId::random());
    let of = |trace, message: &str| Line { trace: Some(trace), ..line("service_1", message) };
    logs.append(vec![of(wanted, "a"), of(other, "b"), line("service_1", "c"), of(wanted, "d")]).await.unwrap();
    let query = Query { trace: Some(wanted.to_string()), ..Query::default() };
    let page = logs.read(Subject::Service(service("service_1")), &query).await.unwrap();
    assert_eq!(page.lines.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), ["a", "d"]);
    let mut following = follow(&logs, Query { limit: Some(0), ..query });
    following.now().await.unwrap();
    logs.append(vec![of(other, "e"), of(wanted, "f")]).await.unwrap();
    assert_eq!(next(&mut following).await, ["f"]);
    // A page looks at so many lines and leads on.
    for _ in 0..11 {
        logs.append((0..2_000).map(|_| of(other, "many")).collect()).await.unwrap();
    }
    let query = Query { trace: Some(wanted.to_string()), ..Query::default() };
    let page = logs.read(Subject::Service(service("service_1")), &query).await.unwrap();
    assert!(page.lines.is_empty() && page.has_more);
    let older = Query { cursor: page.next_cursor, ..query };
    assert_eq!(logs.read(Subject::Service(service("service_1")), &older).await.unwrap().lines.len(), 3);
    for (outcome, trace) in [(Some("bad"), None), (None, Some("xyz")), (None, Some("00000000000000000000000000000000"))] {
        let query = Query { outcome: outcome.map(str::to_owned), trace: trace.map(str::to_owned), ..Query::default() };
        let error = logs.read(Subject::Service(service("service_1")), &query).await.unwrap_err();
        assert_eq!(error.code().code, "invalid_request");
    }
}

#[tokio::test]
async fn it_ends_with_the_service_and_an_account_has_so_many() {
    let folder = TempDir::new().unwrap();
    let logs = open(folder.path());
    logs.append(vec![line("service_1", "x")]).await.unwrap();
    let mut many: Vec<_> = (0..LOG_FOLLOWERS_ACCOUNT_MAX).map(|_| follow(&logs, Query::default())).collect();
    let refused = logs.follow(1, Subject::Service(service("service_1")), &Query::default());
    assert!(matches!(refused, Err(Error::TooManyFollowers)));
    assert!(logs.follow(2, Subject::Service(service("service_2")), &Query::default()).is_ok());
    let mut last = many.pop().unwrap();
    drop(many);
    follow(&logs, Query::default());
    assert_eq!(next(&mut last).await, ["x"]);
    let (ended, ()) = tokio::join!(last.next(), async { logs.delete_service(&service("service_1")).await.unwrap() });
    assert!(ended.unwrap().is_none());
}
