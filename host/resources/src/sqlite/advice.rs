//! What would make a query cheaper: the loops that went through a whole table, and which of its columns the statement compares.

use super::link::Link;
use super::raw::Scan;

/// Visits of one loop from which it is worth a word.
pub(super) const NOTABLE_VISITS: u64 = 1_000;
/// Most words in one answer.
const ACTIONS_MAX: usize = 5;
/// Longest statement that is looked into, in bytes.
const SQL_BYTES_MAX: usize = 16 << 10;

/// Adds what can be said about these loops.
pub(super) fn add(actions: &mut Vec<String>, link: &Link, sql: &str, scans: &[Scan]) {
    for scan in scans.iter().filter(|scan| scan.visits >= NOTABLE_VISITS) {
        if actions.len() >= ACTIONS_MAX {
            return;
        }
        let Some(action) = describe(link, sql, scan) else { continue };
        if !actions.contains(&action) {
            actions.push(action);
        }
    }
}

fn describe(link: &Link, sql: &str, scan: &Scan) -> Option<String> {
    let rest = scan.text.strip_prefix("SCAN ")?;
    // `SCAN t USING INDEX i` reads all of an index: the same remedy, another table to look for.
    let name = rest.split_once(" USING ").map_or(rest, |(name, _)| name);
    let tokens = tokens(sql.get(..SQL_BYTES_MAX).unwrap_or(sql));
    let table = table_of(&tokens, name);
    let known = columns(link, &table)?;
    let read = format!("this query scanned {} rows of {table}", grouped(scan.visits));
    let compared = compared(&tokens, &known);
    if compared.is_empty() {
        return Some(format!("{read}; a WHERE on an indexed column, or a LIMIT, would read fewer"));
    }
    let list = compared.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
    let index = quoted(&format!("{table}_{}", compared.join("_")));
    Some(format!("{read}; `create index {index} on {} ({list})` would help", quoted(&table)))
}

/// The names of a table's columns. None when it is no table of the file.
fn columns(link: &Link, table: &str) -> Option<Vec<String>> {
    let names = link.host(|connection| {
        let mut statement = connection.prepare_cached("SELECT name FROM pragma_table_info(?1)")?;
        statement.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
    });
    names.ok().filter(|names| !names.is_empty())
}

/// The words and operators of a statement, without strings and comments.
fn tokens(sql: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = sql.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' => quoted_length(rest, '\''),
            '"' | '`' => quoted_length(rest, first),
            '[' => rest.find(']').map_or(rest.len(), |at| at + 1),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            c if c.is_alphanumeric() || c == '_' => rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()),
            '<' | '>' | '=' | '!' => rest.find(|c: char| !matches!(c, '<' | '>' | '=' | '!')).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        let token = match first {
            '"' | '`' | '[' => token.get(1..token.len().saturating_sub(1)).unwrap_or_default(),
            _ => token,
        };
        if first != '-' && first != '/' {
            tokens.push(token);
        }
        rest = after.trim_start();
    }
    tokens
}

/// The length of what stands between two of these quotes, with them; the quote twice stands for itself.
fn quoted_length(text: &str, quote: char) -> usize {
    text.char_indices().skip(1).find(|(_, c)| *c == quote).map_or(text.len(), |(at, _)| at + quote.len_utf8())
}

/// The table that goes by this name in the statement, which may be an alias.
fn table_of(tokens: &[&str], name: &str) -> String {
    let same = |token: &&str| token.eq_ignore_ascii_case(name);
    let mut from_table: Option<&str> = None;
    for (at, token) in tokens.iter().enumerate() {
        if !same(token) || at == 0 {
            continue;
        }
        let before = tokens.get(at - 1).copied().unwrap_or_default();
        let is_from = |word: &str| ["from", "join", ",", "update", "into"].iter().any(|known| word.eq_ignore_ascii_case(known));
        if is_from(before) {
            return name.to_owned();
        }
        let (table, lead) = if before.eq_ignore_ascii_case("as") {
            (at.checked_sub(2).and_then(|at| tokens.get(at)), at.checked_sub(3).and_then(|at| tokens.get(at)))
        } else {
            (tokens.get(at - 1), at.checked_sub(2).and_then(|at| tokens.get(at)))
        };
        if lead.is_some_and(|lead| is_from(lead)) {
            from_table = from_table.or(table.copied());
        }
    }
    from_table.unwrap_or(name).to_owned()
}

/// The columns of the table that the statement compares with something, at most three, in the order of the statement.
fn compared(tokens: &[&str], known: &[String]) -> Vec<String> {
    let compares = |token: Option<&&str>| {
        token
            .is_some_and(|token| ["=", "==", "<", ">", "<=", ">=", "in", "between", "is"].iter().any(|operator| token.eq_ignore_ascii_case(operator)))
    };
    let start = tokens.iter().position(|token| token.eq_ignore_ascii_case("where") || token.eq_ignore_ascii_case("on")).unwrap_or(tokens.len());
    let mut found = Vec::<String>::new();
    for (at, token) in tokens.iter().enumerate().skip(start) {
        let Some(column) = known.iter().find(|column| column.eq_ignore_ascii_case(token)) else { continue };
        let after = compares(tokens.get(at + 1));
        // `n.created` is three words.
        let qualified = at.checked_sub(1).and_then(|at| tokens.get(at)).is_some_and(|before| *before == ".");
        let before = at.checked_sub(if qualified { 3 } else { 1 }).is_some_and(|at| compares(tokens.get(at)));
        if (after || before) && !found.contains(column) && found.len() < 3 {
            found.push(column.clone());
        }
    }
    found
}

/// An identifier as SQL writes it.
fn quoted(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A number with commas.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_outside_of_strings_and_comments() {
        assert_eq!(
            tokens("select \"a b\", 'x = y' from t -- where z = 1\nwhere[c]>=?1"),
            ["select", "a b", ",", "'x = y'", "from", "t", "where", "c", ">=", "?", "1"]
        );
    }

    #[test]
    fn a_table_is_found_by_its_alias() {
        for (sql, name, table) in [
            ("select * from notes n where n.a = 1", "n", "notes"),
            ("select * from x join notes as n on n.a = x.a", "n", "notes"),
            ("select * from notes where a = 1", "notes", "notes"),
        ] {
            assert_eq!(table_of(&tokens(sql), name), table);
        }
    }

    #[test]
    fn compared_columns_are_those_of_the_table() {
        let known = ["author".to_owned(), "created".to_owned(), "body".to_owned()];
        let found = compared(&tokens("select body from notes n where 5 < n.created and author = ?1 and other = 3 order by body"), &known);
        assert_eq!(found, ["created", "author"]);
    }
}
