//! What is measured: which server is asked for what, over how many connections.

use super::servers::Kind;

/// Connections at a time, of the rows that are measured under load.
pub const CONNECTIONS: [u32; 3] = [1, 16, 64];
/// Calls after the first invocation. 31 makes the longest chain that the host allows.
const HOPS: [u32; 4] = [0, 1, 8, 31];
/// Chains are a matter of latency, so one connection asks.
const CHAIN_CONNECTIONS: [u32; 1] = [1];

/// One row of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Server, worker and, for a chain, hops.
    pub name: String,
    /// Who answers.
    pub server: Kind,
    /// Worker and world, without the server and the hops.
    pub worker: &'static str,
    /// The Host header, where the server picks by it.
    pub host: Option<&'static str>,
    /// The hops of a chain.
    pub hops: Option<u32>,
    /// How many connections ask at a time, one measurement each.
    pub connections: &'static [u32],
}

impl Row {
    /// The path that is asked for.
    pub fn path(&self) -> String {
        format!("/{}", self.hops.unwrap_or(0))
    }

    fn hello(server: Kind, worker: &'static str, host: Option<&'static str>) -> Self {
        Self { name: format!("{} {worker}", server.name()), server, worker, host, hops: None, connections: &CONNECTIONS }
    }

    fn chain(server: Kind, worker: &'static str, host: Option<&'static str>) -> impl Iterator<Item = Self> {
        HOPS.into_iter().map(move |hops| Self {
            name: format!("{} {worker} {hops}", server.name()),
            server,
            worker,
            host,
            hops: Some(hops),
            connections: &CHAIN_CONNECTIONS,
        })
    }
}

fn all() -> Vec<Row> {
    let mut rows = vec![
        Row::hello(Kind::Native, "hello", None),
        Row::hello(Kind::Host, "hello lean", Some("hello.localhost")),
        Row::hello(Kind::Host, "hello p2", Some("hello-p2.localhost")),
        Row::hello(Kind::Workerd, "hello", None),
        Row::hello(Kind::WasmtimeServe, "hello p2", None),
    ];
    rows.extend(Row::chain(Kind::Host, "chain lean", Some("chain.localhost")));
    rows.extend(Row::chain(Kind::Host, "chain p2", Some("chain-p2.localhost")));
    rows.extend(Row::chain(Kind::WorkerdChain, "chain", None));
    rows
}

/// The rows whose names begin with one of these; all without any.
pub fn selected(only: &[String]) -> Vec<Row> {
    let mut rows = all();
    rows.retain(|row| only.is_empty() || only.iter().any(|prefix| row.name.starts_with(prefix.trim())));
    rows
}

/// The names of all rows.
pub fn names() -> Vec<String> {
    all().into_iter().map(|row| row.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_pick_rows_by_their_beginning() {
        let mut names = names();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        let of = |only: &str| selected(&[only.to_owned()]).len();
        assert_eq!((of("native"), of("host"), of("host chain"), of("host chain lean 31"), of("nothing")), (1, 10, 8, 1, 0));
        assert_eq!(selected(&[]).len(), count);
    }
}
