//! Files that a build has compressed already, and which of them a client takes.

use http::{HeaderMap, header};

use crate::assets::{Stat, Tree};

/// How a file was compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Brotli,
    Zstd,
    Gzip,
}

/// In the order of preference: what compresses text best comes first.
const ALL: [Encoding; 3] = [Encoding::Brotli, Encoding::Zstd, Encoding::Gzip];

impl Encoding {
    /// As HTTP names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// The path of the file that stands in for `path`.
    pub fn sibling_of(self, path: &str) -> String {
        let ending = match self {
            Self::Brotli => ".br",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
        };
        [path, ending].concat()
    }

    fn is_named(self, name: &str) -> bool {
        name.eq_ignore_ascii_case(self.name()) || (self == Self::Gzip && name.eq_ignore_ascii_case("x-gzip"))
    }
}

/// The compressed forms of a file. One that is older than the file was left by an earlier build and is none; a deploy's times say nothing of that.
pub(super) fn siblings(tree: &impl Tree, path: &str, identity: Stat) -> Vec<(Encoding, Stat)> {
    let is_current = |stat: &Stat| identity.sha256.is_some() || stat.modified >= identity.modified;
    let sibling = |encoding: Encoding| Some((encoding, tree.file(&encoding.sibling_of(path)).filter(is_current)?));
    ALL.into_iter().filter_map(sibling).collect()
}

/// The form that a client prefers, or none for the file as it is.
pub(super) fn choose(siblings: &[(Encoding, Stat)], headers: &HeaderMap) -> Option<(Encoding, Stat)> {
    let mut best: Option<(u16, (Encoding, Stat))> = None;
    for sibling in siblings {
        let weight = weight_of(sibling.0, headers);
        if weight > best.as_ref().map_or(0, |(weight, _)| *weight) {
            best = Some((weight, *sibling));
        }
    }
    best.map(|(_, sibling)| sibling)
}

/// How much a client wants an encoding, in thousandths.
fn weight_of(encoding: Encoding, headers: &HeaderMap) -> u16 {
    let mut any = 0;
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for item in values.flat_map(|value| value.split(',')) {
        let mut fields = item.split(';').map(str::trim);
        let name = fields.next().unwrap_or_default();
        let weight = fields.find_map(|field| field.strip_prefix("q=").or_else(|| field.strip_prefix("Q="))).map_or(1000, thousandths);
        if encoding.is_named(name) {
            return weight;
        }
        if name == "*" {
            any = weight;
        }
    }
    any
}

/// A weight such as `0.5`. What is none counts as nothing: the client gets the file as it is, which everybody can read.
fn thousandths(text: &str) -> u16 {
    let weight = text.trim().parse::<f32>().ok().filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or_default();
    (weight * 1000.0) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &str, have: &[Encoding]) -> &'static str {
        let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, accept.parse().unwrap())]);
        let stat = Stat { bytes: 1, modified: None, sha256: None };
        let siblings: Vec<_> = have.iter().map(|encoding| (*encoding, stat)).collect();
        choose(&siblings, &headers).map_or("identity", |(encoding, _)| encoding.name())
    }

    #[test]
    fn the_client_decides_and_the_smallest_form_wins_where_it_does_not() {
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", "br"),
            ("gzip, zstd", "zstd"),
            ("gzip;q=1.0, br;q=0.5", "gzip"),
            ("br;q=0, *", "zstd"),
            ("*;q=0.1", "br"),
            ("x-gzip", "gzip"),
            ("GZIP", "gzip"),
            ("br;q=0", "identity"),
            ("identity", "identity"),
            ("", "identity"),
            ("br;q=2", "identity"),
            ("br;q=nan, gzip;q=0.001", "gzip"),
            ("br ; q=0.2 , gzip ; q=0.3", "gzip"),
            ("brotli", "identity"),
        ] {
            assert_eq!(chosen(accept, &ALL), expected, "{accept}");
        }
        assert_eq!(chosen("br, gzip", &[Encoding::Gzip]), "gzip");
        assert_eq!(chosen("br", &[Encoding::Gzip]), "identity");
    }
}
