//! Lists, deletion, usage, and what is swept.

use futures::SinkExt;

use super::*;

on_both! {
    lists_are_in_byte_order_and_in_pages
    deletion_says_what_it_removed
    a_service_goes_wholly_and_alone
    abandoned_uploads_are_swept_after_a_day
}

async fn paths(fixture: &Fixture, prefix: &str, limit: u32) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let list = List { prefix: prefix.into(), limit: Some(limit), cursor: cursor.take() };
        let page = fixture.objects.list(SERVICE, list).await.unwrap();
        assert!(page.objects.len() <= limit as usize);
        assert!(!page.has_more() || page.objects.len() == limit as usize);
        all.extend(page.objects.into_iter().map(|object| object.path));
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return all,
        }
    }
}

async fn lists_are_in_byte_order_and_in_pages(fixture: Fixture) {
    let mut all = ["a", "a/b", "a/c", "a0", "b", "日本/x", "日本/y", "é", "Z", "a!"].map(str::to_owned).to_vec();
    for path in &all {
        fixture.objects.begin(TENANT, new(path, 1)).await.unwrap();
    }
    fixture.objects.begin(Tenant { service: SERVICE + 1, ..TENANT }, new("a/other", 1)).await.unwrap();
    all.sort();
    for limit in [1, 2, 3, 9, 10, 11] {
        assert_eq!(paths(&fixture, "", limit).await, all);
        for prefix in ["a", "a/", "日", "é", "zz", "a/b"] {
            let expected: Vec<_> = all.iter().filter(|path| path.starts_with(prefix)).cloned().collect();
            assert_eq!(paths(&fixture, prefix, limit).await, expected, "{prefix} {limit}");
        }
    }
    let pages: Vec<Page> = fixture.objects.list_all(SERVICE, "a".into(), None).try_collect().await.unwrap();
    assert_eq!(pages.iter().map(|page| page.objects.len()).sum::<usize>(), 5);
    for cursor in ["", "zz", "2f61", "ff", "é"] {
        let list = List { cursor: Some(cursor.into()), ..List::default() };
        assert!(matches!(fixture.objects.list(SERVICE, list).await, Err(Error::Cursor)), "{cursor}");
    }
    let other = List { prefix: "b".into(), cursor: Some(hex::encode("a")), limit: None };
    assert!(matches!(fixture.objects.list(SERVICE, other).await, Err(Error::Cursor)));
    for limit in [0, 1_001] {
        assert!(matches!(fixture.objects.list(SERVICE, List { limit: Some(limit), ..List::default() }).await, Err(Error::Request(_))));
    }
}

async fn deletion_says_what_it_removed(fixture: Fixture) {
    let objects = &fixture.objects;
    fixture.put("x", "12345").await;
    objects.begin(TENANT, new("x", 9)).await.unwrap();
    assert!(!objects.delete(SERVICE, "y").await.unwrap().any());
    assert!(!objects.delete(SERVICE + 1, "x").await.unwrap().any());
    assert_eq!(objects.delete(SERVICE, "x").await.unwrap(), Deleted { objects: 1, bytes: 5, uploads: 1 });
    assert_eq!(objects.delete(SERVICE, "x").await.unwrap(), Deleted::default());
    // A put that runs meanwhile is not disturbed.
    let (mut sender, receiver) = futures::channel::mpsc::channel::<Result<Bytes, String>>(0);
    let put = PutObject { path: "x".into(), content_type: String::new(), size_bytes: None, public_read: false };
    let running = tokio::spawn({
        let objects = objects.clone();
        async move { objects.put(TENANT, put, held(receiver)).await }
    });
    sender.send(Ok(Bytes::from_static(b"l"))).await.unwrap();
    sender.send(Ok(Bytes::from_static(b"ater"))).await.unwrap();
    assert!(!objects.delete(SERVICE, "x").await.unwrap().any());
    drop(sender);
    running.await.unwrap().unwrap();
    assert_eq!(fixture.get("x").await.unwrap(), b"later");
    objects.delete(SERVICE, "x").await.unwrap();
    assert_eq!(objects.usage(SERVICE).await.unwrap(), Usage::default());
    assert_eq!(fixture.blobs().await.len(), 0);
}

async fn a_service_goes_wholly_and_alone(fixture: Fixture) {
    let other = Tenant { service: SERVICE + 1, ..TENANT };
    for number in 0..30 {
        fixture.put(&format!("many/{number}"), "12").await;
        fixture.objects.begin(TENANT, new(&format!("open/{number}"), 3)).await.unwrap();
    }
    let put = PutObject { path: "kept".into(), content_type: String::new(), size_bytes: None, public_read: false };
    fixture.objects.put(other, put, body("kept")).await.unwrap();
    assert_eq!(fixture.objects.account_usage(1).await.unwrap(), Usage { objects: 31, bytes: 64, reserved_bytes: 90 });
    assert_eq!(fixture.objects.remove_service(SERVICE).await.unwrap(), Deleted { objects: 30, bytes: 60, uploads: 30 });
    assert_eq!(fixture.objects.remove_service(SERVICE).await.unwrap(), Deleted::default());
    assert_eq!(fixture.objects.account_usage(1).await.unwrap(), Usage { objects: 1, bytes: 4, reserved_bytes: 0 });
    assert_eq!(fixture.blobs().await.len(), 1);
    assert!(fixture.objects.head(SERVICE + 1, "kept", Reader::Granted).await.is_ok());
}

async fn abandoned_uploads_are_swept_after_a_day(fixture: Fixture) {
    let objects = &fixture.objects;
    fixture.put("kept", "kept").await;
    let old = objects.begin_multipart(TENANT, new("old", 6 * MIB), Some(5 * MIB as u64)).await.unwrap();
    let received = objects.receive(SERVICE, old.id, 2, None, body(pattern(MIB, 1))).await.unwrap();
    objects.begin(TENANT, new("kept", 2)).await.unwrap();
    fixture.advance(86_398);
    let young = objects.begin(TENANT, new("young", 1)).await.unwrap();
    assert_eq!(objects.sweep().await.unwrap().uploads, 0);
    fixture.advance(10);
    assert!(matches!(objects.receive(SERVICE, old.id, 1, None, body("x")).await, Err(Error::UploadNotFound)), "it is over before it is swept");
    assert_eq!(objects.sweep().await.unwrap().uploads, 2);
    assert_eq!(objects.sweep().await.unwrap().uploads, 0);
    let parts = vec![CompletedPart { number: 1, etag: received.etag }];
    assert!(matches!(objects.complete_multipart(SERVICE, "old", old.id, parts).await, Err(Error::UploadNotFound)));
    let listed = objects.list(SERVICE, List::default()).await.unwrap().objects;
    assert_eq!(listed.iter().map(|object| object.path.as_str()).collect::<Vec<_>>(), ["kept", "young"]);
    assert_eq!(fixture.blobs().await.len(), 1);
    objects.receive(SERVICE, young.id, 1, None, body("y")).await.unwrap();
    objects.complete(SERVICE, "young").await.unwrap();
    assert_eq!(objects.usage(SERVICE).await.unwrap(), Usage { objects: 2, bytes: 5, reserved_bytes: 0 });
}
