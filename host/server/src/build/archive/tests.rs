//! Archives as they should be, archives that mean harm, and archives that are noise.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tar::Builder;

use super::*;

const LIMITS: ArchiveLimits = ArchiveLimits { bytes: 4 << 20, file_bytes: 2 << 20, files: 50, ratio: 100, ratio_from_bytes: 1 << 20 };

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

/// A header with these bytes as its name, whatever they are.
fn header(name: &[u8], entry_type: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(entry_type);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

/// A tar made by hand.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(self, name: &str, entry_type: EntryType, content: &[u8]) -> Self {
        self.raw(&header(name.as_bytes(), entry_type, content.len() as u64), content)
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name, EntryType::Regular, content)
    }

    /// A file whose name stands in a record before it.
    fn long(self, name: &[u8], content: &[u8]) -> Self {
        let record: Vec<u8> = name.iter().copied().chain([0]).collect();
        self.entry("././@LongLink", EntryType::GNULongName, &record).file("short", content)
    }

    fn attributes(self, pairs: &[(&str, &str)], entry_type: EntryType) -> Self {
        let mut record = String::new();
        for (key, value) in pairs {
            let rest = format!(" {key}={value}\n");
            let length = (1..6).map(|digits| rest.len() + digits).find(|length| length.to_string().len() + rest.len() == *length).unwrap();
            record.push_str(&format!("{length}{rest}"));
        }
        self.entry("attributes", entry_type, record.as_bytes())
    }

    fn raw(mut self, header: &Header, content: &[u8]) -> Self {
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// Unpacks into a folder whose neighbour must stay as it is.
fn unpack_bytes(bytes: &[u8], kind: Kind) -> (Result<Unpacked, ArchiveError>, BTreeMap<String, Vec<u8>>) {
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("neighbour"), "untouched").unwrap();
    let into = outer.path().join("into");
    let result = unpack(bytes, &into, &LIMITS, kind, &AtomicBool::new(false));
    assert_eq!(fs::read(outer.path().join("neighbour")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1 + usize::from(result.is_ok()), "nothing is left of what was refused");
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(&into).into_iter().flatten() {
        assert!(entry.file_type().is_file() || entry.file_type().is_dir());
        if entry.file_type().is_file() {
            files.insert(entry.path().strip_prefix(&into).unwrap().to_str().unwrap().to_owned(), fs::read(entry.path()).unwrap());
        }
    }
    (result, files)
}

/// Unpacks what may be accepted or not. That nothing is written outside is seen to above.
fn attempt(bytes: &[u8], kind: Kind) {
    let _ = unpack_bytes(bytes, kind);
}

fn accepted(tar: Tar, kind: Kind) -> Vec<String> {
    let (result, files) = unpack_bytes(&gzip(&tar.end()), kind);
    assert_eq!(result.unwrap().files, files.len() as u64);
    files.into_keys().collect()
}

fn refused_bytes(bytes: &[u8]) -> String {
    let (result, _) = unpack_bytes(bytes, Kind::Source);
    let error = result.unwrap_err();
    assert!(error.code().is_some(), "{error}");
    error.to_string()
}

fn refused(tar: Tar) -> String {
    refused_bytes(&gzip(&tar.end()))
}

#[test]
fn what_the_clients_send_is_unpacked() {
    let long = format!("./{}/main.rs", "d".repeat(120));
    let tar = Tar::default()
        .entry("./", EntryType::Directory, b"")
        .entry("src/", EntryType::Directory, b"")
        .file("src/main.rs", b"fn main() {}")
        .entry("src", EntryType::Directory, b"")
        .file("./README.md", b"")
        .long(long.as_bytes(), b"long")
        .attributes(&[("mtime", "1.5"), ("path", "src/ä.rs")], EntryType::XHeader)
        .file("src/a.rs", b"")
        .attributes(&[("comment", "0123")], EntryType::XGlobalHeader)
        .file(".DS_Store", b"junk")
        .file("src/._main.rs", b"junk")
        .file(".env.example", b"KEY=");
    let expected = [".env.example", "README.md", &long[2..], "src/main.rs", "src/ä.rs"];
    assert_eq!(accepted(tar, Kind::Source), expected);
}

#[test]
fn programs_keep_the_right_to_run_in_source_only() {
    for (kind, expected) in [(Kind::Source, 0o755), (Kind::Assets, 0o644)] {
        let outer = tempfile::tempdir().unwrap();
        let into = outer.path().join("into");
        let mut program = header(b"run.sh", EntryType::Regular, 0);
        program.set_mode(0o6777);
        program.set_cksum();
        let tar = Tar::default().raw(&program, b"").file("a", b"").end();
        unpack(gzip(&tar).as_slice(), &into, &LIMITS, kind, &AtomicBool::new(false)).unwrap();
        let mode = |name: &str| fs::metadata(into.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("run.sh"), mode("a")), (expected, 0o644));
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused_by_name() {
    let deep = "d/".repeat(65) + "f";
    let cases: &[(&[u8], &str)] = &[
        (b"/etc/passwd", "is absolute"),
        (b"../x", "contains `..`"),
        (b"a/../../x", "contains `..`"),
        (b"./../x", "contains `..`"),
        (b"a\\..\\x", "backslash"),
        (b"a\xff", "not UTF-8"),
        (b"a//b", "empty part"),
        (b"a/./b", "empty part"),
        (b"a/", "empty part"),
        (b"", "empty part"),
        (b"a\nb", "control character"),
    ];
    for (name, expected) in cases {
        let text = refused(Tar::default().raw(&header(name, EntryType::Regular, 0), b""));
        assert!(text.contains(expected) && text.contains("the archive's entry `"), "{text}");
        let text = refused(Tar::default().long(name, b""));
        assert!(text.contains(expected), "{text}");
    }
    for (name, expected) in [(deep.as_str(), "more than 64 levels"), (&"a/".repeat(520), "longer than 1,024"), (&"x".repeat(256), "longer than 255")]
    {
        let text = refused(Tar::default().long(name.as_bytes(), b""));
        assert!(text.contains(expected), "{text}");
    }
    assert!(refused(Tar::default().long(b"a\0b", b"")).contains("contains a NUL"));
    assert!(refused(Tar::default().attributes(&[("path", "../x")], EntryType::XHeader).file("a", b"")).contains("contains `..`"));
    assert!(refused(Tar::default().entry("../d/", EntryType::Directory, b"")).contains("contains `..`"));
}

#[test]
fn what_is_no_file_is_refused_by_name() {
    let link = |entry_type| {
        let mut link = header(b"link", entry_type, 0);
        link.set_link_name("/etc/passwd").unwrap();
        link.set_cksum();
        Tar::default().raw(&link, b"").file("link/x", b"")
    };
    let cases = [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a named pipe"),
        (EntryType::GNUSparse, "a sparse file"),
        (EntryType::Continuous, "neither a file nor a folder"),
        (EntryType::new(b'M'), "neither a file nor a folder"),
    ];
    for (entry_type, expected) in cases {
        let text = refused(link(entry_type));
        assert!(text.contains(&format!("entry `link` is {expected}")), "{text}");
    }
}

#[test]
fn secrets_and_build_output_are_refused_by_name() {
    for name in ["api/.env", ".env.local", "sub/id_rsa", "web/.npmrc", "a/server.pem", ".git/config", "x/.cargo/credentials.toml", ".ssh/config"] {
        let text = refused(Tar::default().file(name, b"x"));
        assert!(text.contains(&format!("`{name}` is a place for secrets")) && text.contains("tovuk env set"), "{text}");
        let (result, _) = unpack_bytes(&gzip(&Tar::default().file(name, b"x").end()), Kind::Assets);
        assert!(result.is_err(), "{name}");
    }
    assert!(refused(Tar::default().entry(".git/", EntryType::Directory, b"")).contains("place for secrets"));
    for name in ["target/x", "web/node_modules/a/b.js", ".tovuk/x", "a.so", "b.EXE", "c.rlib"] {
        refused(Tar::default().file(name, b"x"));
        assert_eq!(accepted(Tar::default().file(name, b"x"), Kind::Assets), [name]);
    }
}

#[test]
fn one_name_stands_for_one_entry() {
    let twice: [Tar; 5] = [
        Tar::default().file("a", b"1").file("a", b"2"),
        Tar::default().file("a", b"1").file("./a", b"2"),
        Tar::default().file("a", b"1").file("a/b", b"2"),
        Tar::default().file("a/b", b"1").file("a", b"2"),
        Tar::default().file("a", b"1").entry("a/", EntryType::Directory, b""),
    ];
    for tar in twice {
        assert!(refused(tar).contains("is there twice"));
    }
    assert_eq!(accepted(Tar::default().file("a", b"").file("A", b""), Kind::Source), ["A", "a"], "names differ by case");
}

#[test]
fn everything_is_counted_and_bombs_are_refused() {
    let noise: Vec<u8> = (0..600_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let many = |count: usize| (0..count).fold(Tar::default(), |tar, number| tar.file(&number.to_string(), b""));
    assert_eq!(accepted(many(50), Kind::Source).len(), 50);
    assert!(refused(many(51)).contains("more than 50 files"));
    let folders = (0..300).fold(Tar::default(), |tar, number| tar.entry(&format!("{number}/"), EntryType::Directory, b""));
    assert!(refused(folders).contains("more than 50 files or folders"));
    // Folders that no entry names are as many: here 26 in each of two.
    let deep = |number: u32| format!("{number}/{}", "a/".repeat(25));
    let chain = |numbers: std::ops::Range<u32>| numbers.fold(Tar::default(), |tar, number| tar.entry(&deep(number), EntryType::Directory, b""));
    assert!(refused(chain(0..2)).contains("the archive holds more than 50 files or folders"));
    accepted(chain(0..1), Kind::Source);
    let files = (0..2).fold(Tar::default(), |tar, number| tar.file(&format!("{}x", deep(number)), b""));
    assert!(refused(files).contains("more than 50 files or folders"));
    assert!(refused(Tar::default().file("big", &noise)).contains("`big` is larger than 2 MiB"));
    let half = &noise[..noise.len() / 2];
    let total = (0..4).fold(Tar::default(), |tar, number| tar.file(&number.to_string(), half));
    assert!(refused(total).contains("unpacks to more than 4 MiB"));
    assert!(refused(Tar::default().file("zeros", &vec![0; 2 << 20])).contains("100 times its size"));
    // A header may claim anything: what is there is counted.
    let mut claims = header(b"a", EntryType::Regular, 1 << 40);
    claims.set_cksum();
    assert!(refused(Tar::default().raw(&claims, b"x")).contains("ends too early"));
    let record = vec![b'a'; 20_000];
    assert!(refused(Tar::default().entry("x", EntryType::GNULongName, &record)).contains("more than 16 KiB"));
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(refused_bytes(&bomb).contains("times its size"), "zeros after the end are counted as well");
}

#[test]
fn attributes_that_change_what_a_header_says_are_refused() {
    for key in ["size", "GNU.sparse.realsize", "GNU.sparse.map", "linkpath"] {
        for entry_type in [EntryType::XHeader, EntryType::XGlobalHeader] {
            assert!(refused(Tar::default().attributes(&[(key, "1")], entry_type).file("a", b"x")).contains(key));
        }
    }
    assert!(refused(Tar::default().attributes(&[("path", "a")], EntryType::XGlobalHeader).file("b", b"")).contains("path"));
    let two_names = Tar::default().entry("x", EntryType::GNULongName, b"a\0").attributes(&[("path", "b")], EntryType::XHeader).file("c", b"");
    assert!(refused(two_names).contains("two names"));
    assert!(refused(Tar::default().entry("x", EntryType::XHeader, b"nonsense").file("a", b"")).contains("cannot be read"));
}

#[test]
fn what_is_cut_or_goes_on_is_refused() {
    let tar = Tar::default().file("a", &[7; 3000]).file("b", b"x").end();
    let whole = gzip(&tar);
    for length in [0, 5, 20, whole.len() / 2, whole.len() - 1] {
        assert!(refused_bytes(&whole[..length]).contains("ends too early"), "{length}");
    }
    for length in [512, 1000, 3584, tar.len() - 1024] {
        assert!(refused_bytes(&gzip(&tar[..length])).contains("ends too early"), "{length}");
    }
    let with = |more: &[u8]| [whole.as_slice(), more].concat();
    assert!(refused_bytes(&with(b"x")).contains("goes on after its end"));
    assert!(refused_bytes(&with(&whole)).contains("goes on after its end"));
    assert!(refused_bytes(&gzip(&[tar.as_slice(), b"hidden"].concat())).contains("goes on after its end"));
    let mut wrong_sum = whole.clone();
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 1;
    assert!(refused_bytes(&wrong_sum).contains("damaged"));
    for other in [b"PK\x03\x04 is a zip file, which is not what is read here".as_slice(), &tar] {
        assert!(refused_bytes(other).contains("not a gzip-compressed tar"));
    }
}

#[test]
fn a_folder_in_use_is_left_alone_and_a_cancelled_upload_leaves_nothing() {
    let outer = tempfile::tempdir().unwrap();
    let archive = gzip(&Tar::default().file("a", b"new").end());
    let into = outer.path().join("into");
    let cancelled = unpack(archive.as_slice(), &into, &LIMITS, Kind::Source, &AtomicBool::new(true));
    assert!(matches!(cancelled, Err(ArchiveError::Cancelled)) && !into.exists());
    fs::create_dir(&into).unwrap();
    fs::write(into.join("a"), "old").unwrap();
    let error = unpack(archive.as_slice(), &into, &LIMITS, Kind::Source, &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(error, ArchiveError::Write { .. }), "{error}");
    assert_eq!(fs::read(into.join("a")).unwrap(), b"old");
}

fn tree() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
    // Folders and files have names of their own, so that no path is both.
    let path = "(d[a-z]{1,8}/){0,5}f[ a-zäß.-]{1,40}(x{120})?"
        .prop_filter("names of extensions that are refused", |path| unwanted(path, Kind::Source).is_none());
    proptest::collection::btree_map(path, proptest::collection::vec(any::<u8>(), 0..2000), 1..10)
}

fn pack(tree: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, content) in tree {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn trees_come_back_as_they_were(tree in tree()) {
        let (result, files) = unpack_bytes(&gzip(&pack(&tree)), Kind::Source);
        prop_assert_eq!(result.unwrap().bytes, tree.values().map(|content| content.len() as u64).sum::<u64>());
        prop_assert_eq!(files, tree);
    }

    /// `unpack_bytes` fails when something was written outside, and a panic fails as well.
    #[test]
    fn noise_and_damaged_archives_never_reach_outside(tree in tree(), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut tar = pack(&tree);
        for (at, byte) in &changes {
            let at = at.index(tar.len());
            tar[at] = *byte;
            // The sum of the header is made right again, so that what it says is looked at.
            let start = at / 512 * 512;
            if let Ok(block) = <&[u8; 512]>::try_from(&tar[start..start + 512]) {
                let mut header = Header::from_byte_slice(block).clone();
                header.set_cksum();
                tar[start..start + 512].copy_from_slice(header.as_bytes());
            }
        }
        attempt(&gzip(&tar), Kind::Assets);
        let mut archive = gzip(&pack(&tree));
        for (at, byte) in changes {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        attempt(&archive, Kind::Assets);
    }

    #[test]
    fn random_bytes_never_reach_outside(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
        attempt(&bytes, Kind::Source);
        attempt(&gzip(&bytes), Kind::Source);
    }
}
