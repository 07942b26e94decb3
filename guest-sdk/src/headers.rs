//! Header fields, kept exactly as they cross the component boundary: a list of names and bytes in order.
//!
//! It is not a map: a worker reads a handful of fields of one request, for which walking the list is cheaper than hashing every field of
//! every request. It does not validate: the host refuses what is not valid HTTP.

/// Header fields in order. Names are lower case; a name may occur more than once; values are bytes, almost always text.
///
/// ```
/// let mut headers = tovuk::Headers::new();
/// headers.append("accept", "text/html");
/// headers.append("Accept", "application/json");
/// assert_eq!(headers.get("ACCEPT"), Some("text/html"));
/// assert_eq!(headers.get_all("accept").count(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub(crate) Vec<(String, Vec<u8>)>);

impl Headers {
    /// No fields.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The first value of `name` as text; `None` when there is none or it is not UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_bytes(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The first value of `name`.
    pub fn get_bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }

    /// All values of `name`, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Whether `name` occurs.
    pub fn contains(&self, name: &str) -> bool {
        self.get_bytes(name).is_some()
    }

    /// Adds a field and keeps those of the same name.
    pub fn append(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.0.push((name.to_ascii_lowercase(), value.into()));
    }

    /// Sets a field in place of all of the same name.
    pub fn insert(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.remove(name);
        self.append(name, value);
    }

    /// Removes all fields of this name.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(field, _)| !field.eq_ignore_ascii_case(name));
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insert_replaces_every_field_of_the_name_and_append_keeps_them() {
        let mut headers = Headers::new();
        headers.append("Set-Cookie", "a=1");
        headers.append("set-cookie", "b=2");
        assert_eq!(headers.get_all("SET-COOKIE").collect::<Vec<_>>(), [b"a=1".as_slice(), b"b=2"]);
        headers.insert("set-COOKIE", "c=3");
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("set-cookie", b"c=3".as_slice())]);
        headers.remove("Set-Cookie");
        assert!(headers.is_empty() && !headers.contains("set-cookie"));
        assert_eq!(headers.iter().count(), headers.len());
    }

    #[test]
    fn a_value_that_is_not_text_is_bytes_only() {
        let mut headers = Headers::new();
        headers.append("x-raw", vec![0xff, 0xfe]);
        assert_eq!(headers.get("x-raw"), None);
        assert_eq!(headers.get_bytes("x-raw"), Some([0xff, 0xfe].as_slice()));
    }
}
