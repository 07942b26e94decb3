//! Downloads: ranges, conditions, who may read, and readers of what is replaced.

use super::*;

on_both! {
    ranges_and_conditions_are_those_of_http
    anybody_reads_public_objects_only
    readers_of_a_replaced_object_finish
    concurrent_replacement_is_never_seen_halfway
}

async fn ask(fixture: &Fixture, conditions: Conditions, range: Range) -> Result<Download, Error> {
    fixture.objects.open_object(SERVICE, "x", Reader::Granted, &conditions, range).await
}

async fn ranges_and_conditions_are_those_of_http(fixture: Fixture) {
    let object = fixture.put("x", "0123456789").await;
    for (range, expected, bytes) in [
        (Range::Whole, None, "0123456789"),
        (Range::From(7), Some(7..10), "789"),
        (Range::Between(2, 4), Some(2..5), "234"),
        (Range::Between(9, 100), Some(9..10), "9"),
        (Range::Last(3), Some(7..10), "789"),
        (Range::Last(100), Some(0..10), "0123456789"),
    ] {
        let content = fixture.open("x", range).await.unwrap();
        assert_eq!((content.range.clone(), content.length), (expected, bytes.len() as u64));
        assert_eq!(read(content).await.unwrap(), bytes.as_bytes());
    }
    for range in [Range::From(10), Range::Last(0)] {
        assert!(matches!(ask(&fixture, Conditions::default(), range).await, Err(Error::Range { bytes: 10 })));
    }
    let tag = Some(object.etag.clone());
    let same = Conditions { if_none_match: tag.clone(), ..Conditions::default() };
    assert!(matches!(ask(&fixture, same, Range::Whole).await.unwrap(), Download::NotModified(found) if found == object));
    let since = Conditions { if_modified_since: Some(object.updated_ms), ..Conditions::default() };
    assert!(matches!(ask(&fixture, since, Range::Whole).await.unwrap(), Download::NotModified(_)));
    let other = Conditions { if_match: Some("\"other\"".into()), ..Conditions::default() };
    assert!(matches!(ask(&fixture, other, Range::Whole).await, Err(Error::PreconditionFailed)));
    let held = Conditions { if_match: tag.clone(), if_range: tag, ..Conditions::default() };
    assert!(matches!(ask(&fixture, held, Range::From(1)).await.unwrap(), Download::Content(content) if content.length == 9));
    assert!(matches!(fixture.get("y").await, Err(Error::NotFound(_))));
    assert_eq!(fixture.objects.head(SERVICE, "x", Reader::Granted).await.unwrap(), object);
    assert!(matches!(fixture.objects.head(SERVICE + 1, "x", Reader::Granted).await, Err(Error::NotFound(_))));
}

async fn anybody_reads_public_objects_only(fixture: Fixture) {
    fixture.put("x", "secret").await;
    let any = Conditions { if_none_match: Some("*".into()), ..Conditions::default() };
    let asked = fixture.objects.open_object(SERVICE, "x", Reader::Anybody, &any, Range::From(99)).await;
    assert!(matches!(asked, Err(Error::NotFound(_))), "not even whether it is there");
    assert!(matches!(fixture.objects.head(SERVICE, "x", Reader::Anybody).await, Err(Error::NotFound(_))));
    let public = PutObject { path: "x".into(), content_type: "text/plain".into(), size_bytes: None, public_read: true };
    fixture.objects.put(TENANT, public, body("open")).await.unwrap();
    assert!(fixture.objects.head(SERVICE, "x", Reader::Anybody).await.unwrap().public_read);
}

async fn readers_of_a_replaced_object_finish(fixture: Fixture) {
    let (old, new) = (pattern(11 * MIB, 1), pattern(MIB, 2));
    let upload = fixture.objects.begin_multipart(TENANT, super::new("x", old.len()), Some(5 * MIB as u64)).await.unwrap();
    let mut parts = Vec::new();
    for (part, bytes) in upload.parts.iter().zip(old.chunks(5 * MIB)) {
        let etag = fixture.objects.receive(SERVICE, upload.id, part.number, None, body(bytes.to_vec())).await.unwrap().etag;
        parts.push(CompletedPart { number: part.number, etag });
    }
    fixture.objects.complete_multipart(SERVICE, "x", upload.id, parts).await.unwrap();
    let mut replaced = fixture.open("x", Range::Whole).await.unwrap();
    let deleted = fixture.open("x", Range::Last(3)).await.unwrap();
    let mut bytes = replaced.body.next().await.unwrap().unwrap().to_vec();
    fixture.put("x", new.clone()).await;
    assert_eq!(fixture.blobs().await.len(), 4, "the old bytes are read");
    assert_eq!(fixture.get("x").await.unwrap(), new);
    fixture.objects.delete(SERVICE, "x").await.unwrap();
    assert_eq!(fixture.blobs().await.len(), 3);
    assert_eq!(read(deleted).await.unwrap(), old[old.len() - 3..]);
    while let Some(chunk) = replaced.body.next().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(bytes, old);
    drop(replaced);
    assert_eq!(fixture.blobs().await.len(), 0);
}

async fn concurrent_replacement_is_never_seen_halfway(fixture: Fixture) {
    let of = |number: u64| pattern(200_000 + number as usize * 1_000, number);
    fixture.put("x", of(0)).await;
    let objects = fixture.objects.clone();
    let writer = tokio::spawn(async move {
        for number in 1..40 {
            let new = PutObject { path: "x".into(), content_type: String::new(), size_bytes: None, public_read: false };
            objects.put(TENANT, new, body(of(number))).await.unwrap();
        }
    });
    let mut seen = 0;
    while !writer.is_finished() {
        let bytes = fixture.get("x").await.unwrap();
        let number = (bytes.len() as u64 - 200_000) / 1_000;
        assert!(bytes == of(number) && number >= seen, "version {number} after {seen}");
        seen = number;
    }
    writer.await.unwrap();
    assert_eq!(fixture.get("x").await.unwrap(), of(39));
    assert_eq!(fixture.blobs().await.len(), 1);
}
