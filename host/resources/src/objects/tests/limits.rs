//! Every limit, at its edge.

use tovuk_kernel::limits;

use super::*;

fn sized(size_bytes: u64) -> NewObject {
    NewObject { size_bytes, ..new("x", 0) }
}

#[tokio::test]
async fn sizes_have_their_limits() {
    let fixture = Fixture::folder().await;
    let rich = Tenant { plan: Plan::Pro, ..TENANT };
    let objects = &fixture.objects;
    let upload = objects.begin(rich, sized(limits::OBJECT_SINGLE_BYTES_MAX)).await.unwrap();
    assert!(objects.abort(SERVICE, "x", upload.id).await.unwrap());
    let larger = limits::OBJECT_SINGLE_BYTES_MAX + 1;
    assert!(matches!(objects.begin(rich, sized(larger)).await, Err(Error::TooLarge { bytes, .. }) if bytes == larger));
    let put = PutObject { path: "x".into(), content_type: String::new(), size_bytes: Some(larger), public_read: false };
    assert!(matches!(objects.put(rich, put, body("")).await, Err(Error::TooLarge { .. })));
    let upload = objects.begin_multipart(rich, sized(limits::OBJECT_BYTES_MAX), None).await.unwrap();
    assert_eq!(upload.parts.len() as u64, limits::OBJECT_PARTS_MAX);
    assert_eq!(upload.parts.iter().map(|part| part.size_bytes).sum::<u64>(), limits::OBJECT_BYTES_MAX);
    assert!(upload.parts.iter().all(|part| part.size_bytes <= limits::OBJECT_SINGLE_BYTES_MAX));
    assert!(objects.abort(SERVICE, "x", upload.id).await.unwrap());
    // The URLs of an object with a long path are long, so there are fewer.
    let long = NewObject { path: "é".repeat(limits::OBJECT_PATH_BYTES_MAX / 2), ..sized(limits::OBJECT_BYTES_MAX) };
    let upload = objects.begin_multipart(rich, long.clone(), None).await.unwrap();
    assert!(upload.parts.len() as u64 * (3 * limits::OBJECT_PATH_BYTES_MAX as u64) < limits::OBJECT_PLAN_BYTES_MAX);
    assert_eq!(upload.parts.iter().map(|part| part.size_bytes).sum::<u64>(), limits::OBJECT_BYTES_MAX);
    assert!(upload.parts.iter().all(|part| part.size_bytes <= limits::OBJECT_SINGLE_BYTES_MAX));
    assert!(objects.abort(SERVICE, &long.path, upload.id).await.unwrap());
    assert!(matches!(objects.begin_multipart(rich, sized(limits::OBJECT_BYTES_MAX + 1), None).await, Err(Error::TooLarge { .. })));
    for part in [0, limits::OBJECT_PART_BYTES_MIN - 1, limits::OBJECT_SINGLE_BYTES_MAX + 1, u64::MAX] {
        assert!(matches!(objects.begin_multipart(rich, sized(1), Some(part)).await, Err(Error::Request(_))), "{part}");
    }
    let empty = objects.begin_multipart(rich, sized(0), None).await.unwrap();
    assert_eq!(empty.parts, [PartPlan { number: 1, offset_bytes: 0, size_bytes: 0 }]);
}

#[tokio::test]
async fn an_account_has_no_more_than_its_plan_allows_also_in_open_uploads() {
    let fixture = Fixture::folder().await;
    let (objects, max) = (&fixture.objects, limits::object_storage_account_bytes(Plan::Free));
    let other = Tenant { service: SERVICE + 1, ..TENANT };
    let upload = objects.begin_multipart(TENANT, sized(max - 10), None).await.unwrap();
    assert!(matches!(objects.begin(other, sized(11)).await, Err(Error::StorageLimit { more: 11, .. })));
    objects.begin(Tenant { account: 2, service: 99, plan: Plan::Free }, sized(11)).await.unwrap();
    let put = |size_bytes| PutObject { path: "y".into(), content_type: String::new(), size_bytes, public_read: false };
    assert!(matches!(objects.put(other, put(Some(11)), body("12345678901")).await, Err(Error::StorageLimit { .. })));
    assert!(matches!(objects.put(other, put(None), body("12345678901")).await, Err(Error::StorageLimit { .. })));
    assert_eq!(objects.put(other, put(None), body("1234567890")).await.unwrap().size_bytes, 10);
    assert!(matches!(objects.put(other, put(None), body("1")).await, Err(Error::StorageLimit { .. })), "old and new are there together");
    objects.abort(SERVICE, "x", upload.id).await.unwrap();
    objects.put(other, put(None), body("1")).await.unwrap();
    assert_eq!(objects.account_usage(1).await.unwrap(), Usage { objects: 1, bytes: 1, reserved_bytes: 0 });
}

#[tokio::test]
async fn a_service_has_a_thousand_open_uploads() {
    let fixture = Fixture::folder().await;
    let begun: Vec<_> = (0..limits::OBJECT_UPLOADS_OPEN_MAX).map(|number| fixture.objects.begin(TENANT, new(&format!("{number}"), 1))).collect();
    let uploads = futures::future::try_join_all(begun).await.unwrap();
    assert!(matches!(fixture.objects.begin(TENANT, new("x", 1)).await, Err(Error::UploadLimit)));
    assert!(matches!(fixture.objects.begin_multipart(TENANT, new("x", 1), None).await, Err(Error::UploadLimit)));
    fixture.objects.abort(SERVICE, &uploads[0].path, uploads[0].id).await.unwrap();
    fixture.objects.begin(TENANT, new("x", 1)).await.unwrap();
}

#[tokio::test]
async fn paths_types_and_media_are_checked_at_every_way_in() {
    let fixture = Fixture::folder().await;
    let objects = &fixture.objects;
    for path in ["../x", "/etc/passwd", "a/%2e%2e/b", "a\0b", &"x".repeat(4_096)] {
        let put = PutObject { path: path.into(), content_type: String::new(), size_bytes: None, public_read: false };
        assert!(matches!(objects.begin(TENANT, new(path, 1)).await, Err(Error::Path(_))));
        assert!(matches!(objects.begin_multipart(TENANT, new(path, 1), None).await, Err(Error::Path(_))));
        assert!(matches!(objects.put(TENANT, put, body("")).await, Err(Error::Path(_))));
    }
    assert!(matches!(objects.begin(TENANT, NewObject { content_type: "a\r\nb".into(), ..new("x", 1) }).await, Err(Error::Request(_))));
    let upload = objects.begin(TENANT, NewObject { public_read: true, ..new("x", 4) }).await.unwrap();
    let received = objects.receive(SERVICE, upload.id, 1, None, body("\x7fELF")).await;
    assert!(matches!(&received, Err(error @ Error::Media { .. }) if error.code().status == 415 && error.is_for_caller()));
    let public = PutObject { path: "y".into(), content_type: "image/png".into(), size_bytes: None, public_read: true };
    assert!(matches!(objects.put(TENANT, public.clone(), body("<script>")).await, Err(Error::Media { .. })));
    objects.put(TENANT, PutObject { public_read: false, ..public }, body("<script>")).await.unwrap();
    assert_eq!(fixture.blobs().await.len(), 1);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    /// Whatever a tenant calls an object, its bytes lie under a name that says nothing, below the folder of objects.
    #[test]
    fn no_path_leads_out_of_the_folder(paths in proptest::collection::vec("([a-c./%\\\\;]|%2e|%2f|\\.\\./|é){1,12}", 8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::folder().await;
            let mut stored = std::collections::BTreeSet::new();
            for path in paths {
                let put = PutObject { path: path.clone(), content_type: String::new(), size_bytes: None, public_read: false };
                if fixture.objects.put(TENANT, put, body("x")).await.is_ok() {
                    stored.insert(path);
                }
            }
            let files = fixture.blobs().await;
            assert_eq!(files.len(), stored.len());
            for file in files {
                let below = file.strip_prefix(fixture.folder.path().join("objects")).unwrap();
                let name: String = below.components().map(|part| part.as_os_str().to_str().unwrap()).collect();
                assert!(name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
            }
            for path in stored {
                assert_eq!(fixture.get(&path).await.unwrap(), b"x");
            }
            let mut beside: Vec<_> = std::fs::read_dir(fixture.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            beside.sort();
            assert_eq!(beside, ["objects", "objects.db", "objects.db-shm", "objects.db-wal"]);
        });
    }
}
