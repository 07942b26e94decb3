//! Uploads as a whole, in parts, and in one step.

use futures::SinkExt;

use super::*;

on_both! {
    an_upload_is_there_when_it_was_completed
    what_did_not_come_as_announced_is_refused_and_can_be_sent_again
    parts_come_in_any_order_and_again
    completion_is_checked
    overlapping_uploads_to_a_path_complete_as_what_they_are
    a_later_attempt_takes_the_place_of_one_that_hangs
    an_aborted_upload_leaves_nothing
    put_stores_in_one_step
    a_dropped_put_leaves_nothing
    a_large_body_is_the_same_when_read
}

async fn an_upload_is_there_when_it_was_completed(fixture: Fixture) {
    let objects = &fixture.objects;
    let upload = objects.begin(TENANT, new("uploads/logo.png", 5)).await.unwrap();
    assert_eq!(upload.parts, [PartPlan { number: 1, offset_bytes: 0, size_bytes: 5 }]);
    assert_eq!((upload.path.as_str(), upload.content_type.as_str()), ("uploads/logo.png", "image/png"));
    let listed = objects.list(SERVICE, List::default()).await.unwrap();
    assert_eq!(listed.objects[0].status, Status::Pending);
    assert!(matches!(objects.complete(SERVICE, "uploads/logo.png").await, Err(Error::Incomplete(_))));
    let received = objects.receive(SERVICE, upload.id, 1, Some(5), body("hello")).await.unwrap();
    assert!(matches!(fixture.get("uploads/logo.png").await, Err(Error::NotFound(_))), "it was not completed");
    let object = objects.complete(SERVICE, "uploads/logo.png").await.unwrap();
    assert_eq!((object.status, object.size_bytes, &object.etag), (Status::Ready, 5, &received.etag));
    assert!(object.etag.starts_with('"') && object.etag.ends_with('"') && object.etag.len() == 34);
    assert_eq!(objects.complete(SERVICE, "uploads/logo.png").await.unwrap(), object, "an answer that was lost is given again");
    assert_eq!(fixture.get("uploads/logo.png").await.unwrap(), b"hello");
    assert_eq!(objects.usage(SERVICE).await.unwrap(), Usage { objects: 1, bytes: 5, reserved_bytes: 0 });
    assert!(matches!(objects.receive(SERVICE, upload.id, 1, None, body("later")).await, Err(Error::UploadNotFound)));
    assert!(matches!(objects.complete(SERVICE + 1, "uploads/logo.png").await, Err(Error::UploadNotFound)));
    // What replaces it is there at once and wholly, and the old bytes go.
    let upload = objects.begin(TENANT, new("uploads/logo.png", 7)).await.unwrap();
    objects.receive(SERVICE, upload.id, 1, None, body("goodbye")).await.unwrap();
    assert_eq!(fixture.get("uploads/logo.png").await.unwrap(), b"hello");
    let replaced = objects.complete(SERVICE, "uploads/logo.png").await.unwrap();
    assert_eq!(replaced.created_ms, object.created_ms);
    assert_eq!(fixture.get("uploads/logo.png").await.unwrap(), b"goodbye");
    assert_eq!(objects.usage(SERVICE).await.unwrap(), Usage { objects: 1, bytes: 7, reserved_bytes: 0 });
    assert_eq!(fixture.blobs().await.len(), 1);
}

async fn overlapping_uploads_to_a_path_complete_as_what_they_are(fixture: Fixture) {
    let objects = &fixture.objects;
    let (one, two) = (objects.begin(TENANT, new("x", 5)).await.unwrap().id, objects.begin(TENANT, new("x", 4)).await.unwrap().id);
    objects.receive(SERVICE, two, 1, None, body("last")).await.unwrap();
    assert!(matches!(objects.complete_upload(SERVICE, "x", one).await, Err(Error::Incomplete(_))));
    let first = objects.receive(SERVICE, one, 1, None, body("first")).await.unwrap();
    for (service, path) in [(SERVICE, "y"), (SERVICE + 1, "x")] {
        assert!(matches!(objects.complete_upload(service, path, one).await, Err(Error::UploadNotFound)));
    }
    let object = objects.complete_upload(SERVICE, "x", one).await.unwrap();
    assert_eq!((object.size_bytes, &object.etag), (5, &first.etag));
    assert_eq!(objects.complete_upload(SERVICE, "x", one).await.unwrap(), object, "an answer that was lost is given again");
    assert_eq!(fixture.get("x").await.unwrap(), b"first");
    objects.complete_upload(SERVICE, "x", two).await.unwrap();
    assert_eq!(fixture.get("x").await.unwrap(), b"last");
    assert!(matches!(objects.complete_upload(SERVICE, "x", one).await, Err(Error::UploadNotFound)), "it is the other's now");
    let parts = objects.begin_multipart(TENANT, new("x", 1), None).await.unwrap().id;
    objects.receive(SERVICE, parts, 1, None, body("p")).await.unwrap();
    assert!(matches!(objects.complete_upload(SERVICE, "x", parts).await, Err(Error::UploadNotFound)), "it is one in parts");
    assert_eq!(fixture.blobs().await.len(), 2, "what was replaced is gone");
}

async fn what_did_not_come_as_announced_is_refused_and_can_be_sent_again(mut fixture: Fixture) {
    let upload = fixture.objects.begin(TENANT, new("a", 3 * MIB)).await.unwrap();
    let whole = pattern(3 * MIB, 1);
    let objects = &fixture.objects;
    for wrong in [0, 3 * MIB - 1, 3 * MIB + 1, 9 * MIB] {
        let wrong = pattern(wrong, 1);
        let length = Some(wrong.len() as u64);
        assert!(matches!(objects.receive(SERVICE, upload.id, 1, length, body(wrong.clone())).await, Err(Error::Mismatch(_))));
        assert!(matches!(objects.receive(SERVICE, upload.id, 1, None, body(wrong)).await, Err(Error::Mismatch(_))));
    }
    let lying = objects.receive(SERVICE, upload.id, 1, Some(3 * MIB as u64), body(pattern(2 * MIB, 1))).await;
    assert!(matches!(lying, Err(Error::Mismatch(_))));
    for sent in [0, 10, 2 * MIB, 3 * MIB] {
        let broken = objects.receive(SERVICE, upload.id, 1, None, broken(pattern(sent, 1))).await;
        assert!(matches!(broken, Err(Error::Interrupted(_))), "{sent}");
    }
    for part in [0, 2, u32::MAX] {
        assert!(matches!(objects.receive(SERVICE, upload.id, part, None, body("x")).await, Err(Error::Mismatch(_))));
    }
    assert!(matches!(objects.receive(SERVICE + 1, upload.id, 1, None, body("x")).await, Err(Error::UploadNotFound)));
    assert_eq!(fixture.blobs().await, Vec::<PathBuf>::new(), "nothing is left of what failed");
    // It goes on after a restart.
    fixture.reopen().await;
    fixture.objects.receive(SERVICE, upload.id, 1, Some(3 * MIB as u64), body(whole.clone())).await.unwrap();
    fixture.reopen().await;
    fixture.objects.complete(SERVICE, "a").await.unwrap();
    assert_eq!(fixture.get("a").await.unwrap(), whole);
}

async fn parts_come_in_any_order_and_again(mut fixture: Fixture) {
    let size = 11 * MIB + 17;
    let whole = pattern(size, 2);
    let upload = fixture.objects.begin_multipart(TENANT, new("big.bin", size), Some(5 * MIB as u64)).await.unwrap();
    let planned: Vec<_> = upload.parts.iter().map(|part| (part.number, part.offset_bytes, part.size_bytes)).collect();
    let part = 5 * MIB as u64;
    assert_eq!(planned, [(1, 0, part), (2, part, part), (3, 2 * part, MIB as u64 + 17)]);
    let bytes_of = |number: u32| {
        let part = upload.parts[number as usize - 1];
        whole[part.offset_bytes as usize..(part.offset_bytes + part.size_bytes) as usize].to_vec()
    };
    let mut etags = std::collections::BTreeMap::new();
    // A first attempt with other content, then one that breaks off: what had arrived stays.
    let objects = fixture.objects.clone();
    objects.receive(SERVICE, upload.id, 2, None, body(pattern(5 * MIB, 9))).await.unwrap();
    assert!(objects.receive(SERVICE, upload.id, 3, None, broken(bytes_of(3)[..MIB].to_vec())).await.is_err());
    drop(objects);
    for number in [3, 1, 2] {
        let received = fixture.objects.receive(SERVICE, upload.id, number, None, body(bytes_of(number))).await.unwrap();
        etags.insert(number, received.etag);
        fixture.reopen().await;
    }
    let parts: Vec<_> = etags.into_iter().map(|(number, etag)| CompletedPart { number, etag }).collect();
    let object = fixture.objects.complete_multipart(SERVICE, "big.bin", upload.id, parts.clone()).await.unwrap();
    assert!(object.etag.ends_with("-3\""), "{}", object.etag);
    assert_eq!(fixture.objects.complete_multipart(SERVICE, "big.bin", upload.id, parts).await.unwrap(), object);
    assert_eq!(fixture.get("big.bin").await.unwrap(), whole);
    let middle = fixture.open("big.bin", Range::Between(5 * MIB as u64 - 3, 10 * MIB as u64 + 2)).await.unwrap();
    assert_eq!(read(middle).await.unwrap(), whole[5 * MIB - 3..10 * MIB + 3]);
    assert_eq!(fixture.blobs().await.len(), 3, "the attempt that was replaced is gone");
    assert_eq!(fixture.objects.delete(SERVICE, "big.bin").await.unwrap(), Deleted { objects: 1, bytes: size as u64, uploads: 0 });
    assert_eq!(fixture.blobs().await.len(), 0);
}

async fn completion_is_checked(fixture: Fixture) {
    let objects = &fixture.objects;
    let upload = objects.begin_multipart(TENANT, new("x", 6 * MIB), Some(5 * MIB as u64)).await.unwrap();
    let part = |number, etag: &str| CompletedPart { number, etag: etag.to_owned() };
    let one = objects.receive(SERVICE, upload.id, 1, None, body(pattern(5 * MIB, 1))).await.unwrap().etag;
    let complete = |parts| objects.complete_multipart(SERVICE, "x", upload.id, parts);
    assert!(matches!(complete(vec![part(1, &one), part(2, &one)]).await, Err(Error::Incomplete(_))));
    let two = objects.receive(SERVICE, upload.id, 2, None, body(pattern(MIB, 2))).await.unwrap().etag;
    for wrong in [
        vec![],
        vec![part(1, &one)],
        vec![part(2, &two)],
        vec![part(2, &two), part(1, &one)],
        vec![part(1, &two), part(2, &one)],
        vec![part(1, &one), part(1, &one)],
        vec![part(1, &one), part(2, "")],
        vec![part(1, &one), part(2, &two), part(2, &two)],
        vec![part(1, &one), part(2, &two), part(3, &two)],
    ] {
        assert!(matches!(complete(wrong.clone()).await, Err(Error::Mismatch(_))), "{wrong:?}");
    }
    let right = vec![part(1, one.trim_matches('"')), part(2, &two)];
    assert!(matches!(objects.complete(SERVICE, "x").await, Err(Error::UploadNotFound)), "it is not an upload as a whole");
    assert!(matches!(objects.complete_multipart(SERVICE, "y", upload.id, right.clone()).await, Err(Error::UploadNotFound)));
    assert!(matches!(objects.complete_multipart(SERVICE + 1, "x", upload.id, right.clone()).await, Err(Error::UploadNotFound)));
    complete(right).await.unwrap();
}

async fn a_later_attempt_takes_the_place_of_one_that_hangs(fixture: Fixture) {
    let upload = fixture.objects.begin(TENANT, new("x", 4)).await.unwrap();
    let (mut sender, receiver) = futures::channel::mpsc::channel::<Result<Bytes, String>>(0);
    let hanging = tokio::spawn({
        let objects = fixture.objects.clone();
        async move { objects.receive(SERVICE, upload.id, 1, None, held(receiver)).await }
    });
    // The second piece is taken when the first has been, so the attempt has begun.
    sender.send(Ok(Bytes::from_static(b"o"))).await.unwrap();
    sender.send(Ok(Bytes::from_static(b"l"))).await.unwrap();
    fixture.objects.receive(SERVICE, upload.id, 1, None, body("new!")).await.unwrap();
    assert!(matches!(hanging.await.unwrap(), Err(Error::Superseded)));
    fixture.objects.complete(SERVICE, "x").await.unwrap();
    assert_eq!(fixture.get("x").await.unwrap(), b"new!");
    assert_eq!(fixture.blobs().await.len(), 1);
}

async fn an_aborted_upload_leaves_nothing(fixture: Fixture) {
    let objects = &fixture.objects;
    let upload = objects.begin_multipart(TENANT, new("x", 6 * MIB), Some(5 * MIB as u64)).await.unwrap();
    objects.receive(SERVICE, upload.id, 1, None, body(pattern(5 * MIB, 1))).await.unwrap();
    assert_eq!(objects.account_usage(TENANT.account).await.unwrap().reserved_bytes, 6 * MIB as u64);
    assert!(!objects.abort(SERVICE + 1, "x", upload.id).await.unwrap());
    assert!(!objects.abort(SERVICE, "y", upload.id).await.unwrap());
    assert!(objects.abort(SERVICE, "x", upload.id).await.unwrap());
    assert!(!objects.abort(SERVICE, "x", upload.id).await.unwrap());
    assert!(matches!(objects.receive(SERVICE, upload.id, 2, None, body("x")).await, Err(Error::UploadNotFound)));
    assert_eq!(objects.usage(SERVICE).await.unwrap(), Usage::default());
    assert!(objects.list(SERVICE, List::default()).await.unwrap().objects.is_empty());
    assert_eq!(fixture.blobs().await.len(), 0);
}

async fn put_stores_in_one_step(fixture: Fixture) {
    let object = fixture.put("a", "known").await;
    assert_eq!((object.size_bytes, object.status), (5, Status::Ready));
    let put = |path: &str, size_bytes| PutObject { path: path.into(), content_type: String::new(), size_bytes, public_read: true };
    let whole = pattern(20 * MIB + 5, 3);
    let object = fixture.objects.put(TENANT, put("b", None), body(whole.clone())).await.unwrap();
    assert_eq!((object.size_bytes, object.content_type.as_str()), (whole.len() as u64, "application/octet-stream"));
    assert_eq!(fixture.get("b").await.unwrap(), whole);
    let empty = fixture.objects.put(TENANT, put("c", None), body("")).await.unwrap();
    assert_eq!(empty.size_bytes, 0);
    assert_eq!(fixture.get("c").await.unwrap(), b"");
    for size in [4, 6] {
        assert!(matches!(fixture.objects.put(TENANT, put("a", Some(size)), body("wrong")).await, Err(Error::Mismatch(_))));
    }
    assert!(matches!(fixture.objects.put(TENANT, put("a", None), broken("half")).await, Err(Error::Interrupted(_))));
    assert_eq!(fixture.get("a").await.unwrap(), b"known");
    let bytes = whole.len() as u64 + 5;
    assert_eq!(fixture.blobs().await.len(), 3);
    assert_eq!(fixture.objects.usage(SERVICE).await.unwrap(), Usage { objects: 3, bytes, reserved_bytes: 0 });
}

async fn a_dropped_put_leaves_nothing(fixture: Fixture) {
    let (mut sender, receiver) = futures::channel::mpsc::channel::<Result<Bytes, String>>(0);
    let objects = fixture.objects.clone();
    let put = tokio::spawn(async move {
        let new = PutObject { path: "x".into(), content_type: String::new(), size_bytes: None, public_read: false };
        objects.put(TENANT, new, held(receiver)).await
    });
    for chunk in 0..12 {
        sender.send(Ok(Bytes::from(pattern(MIB, chunk)))).await.unwrap();
    }
    put.abort();
    assert!(put.await.unwrap_err().is_cancelled());
    while fixture.objects.usage(SERVICE).await.unwrap() != Usage::default() || !fixture.blobs().await.is_empty() {
        tokio::task::yield_now().await;
    }
}

async fn a_large_body_is_the_same_when_read(fixture: Fixture) {
    for size in [MIB - 1, MIB, MIB + 1, 8 * MIB, 16 * MIB, 17 * MIB + 1] {
        let whole = pattern(size, size as u64);
        fixture.put("x", whole.clone()).await;
        assert_eq!(fixture.get("x").await.unwrap(), whole, "{size}");
    }
    assert_eq!(fixture.blobs().await.len(), 1);
}
