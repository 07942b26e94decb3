//! Header fields, kept exactly as they cross the component boundary: one text of lines.
//!
//! It is not a map: a worker reads a handful of fields of one request, for which walking the lines is cheaper than taking every field of
//! every request apart. It does not validate: the host refuses what is not valid HTTP.

/// Header fields in order. Names are lower case; a name may occur more than once; values are bytes, almost always text.
///
/// ```
/// let mut headers = tovuk::Headers::new();
/// headers.append("accept", "text/html");
/// headers.append("Accept", "application/json");
/// assert_eq!(headers.get("ACCEPT"), Some("text/html"));
/// assert_eq!(headers.get_all("accept").count(), 2);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub(crate) Vec<u8>);

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
        self.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
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
    ///
    /// A name or value that would break out of its line is kept from doing so, and the host then refuses the message.
    pub fn append(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.0.reserve(name.len() + value.len() + 4);
        let start = self.0.len();
        self.0.extend_from_slice(name.as_bytes());
        for byte in self.0.iter_mut().skip(start) {
            *byte = if matches!(byte, b'\r' | b'\n' | b':') { 0 } else { byte.to_ascii_lowercase() };
        }
        self.0.extend_from_slice(b": ");
        let start = self.0.len();
        self.0.extend_from_slice(value);
        self.0.iter_mut().skip(start).filter(|byte| matches!(byte, b'\r' | b'\n')).for_each(|byte| *byte = 0);
        self.0.extend_from_slice(b"\r\n");
    }

    /// Sets a field in place of all of the same name.
    pub fn insert(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.remove(name);
        self.append(name, value);
    }

    /// Removes all fields of this name.
    pub fn remove(&mut self, name: &str) {
        if !self.contains(name) {
            return;
        }
        let mut kept = Vec::with_capacity(self.0.len());
        for (field, value) in self.iter().filter(|(field, _)| !field.eq_ignore_ascii_case(name)) {
            for part in [field.as_bytes(), b": ", value, b"\r\n"] {
                kept.extend_from_slice(part);
            }
        }
        self.0 = kept;
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let colon = rest.iter().position(|byte| *byte == b':')?;
            let (name, after) = rest.split_at_checked(colon)?;
            // No value has a line end in it, so the first byte of one is enough to look for.
            let end = after.iter().position(|byte| *byte == b'\r')?;
            let (value, tail) = after.split_at_checked(end)?;
            rest = tail.get(2..).unwrap_or_default();
            // Both sides write `: ` before a value. The host writes names that HTTP allows, and `append` takes text, so every name is text.
            Some((std::str::from_utf8(name).unwrap_or_default(), value.get(2..).unwrap_or_default()))
        })
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value)))).finish()
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
    fn nothing_breaks_out_of_its_line() {
        let mut headers = Headers::new();
        headers.append("x-a", "1\r\nx-forged: 2");
        headers.append("x-b\r\nx-forged", "3");
        headers.append("x-c: 4\r\nx-forged", "5");
        assert_eq!(headers.len(), 3);
        assert!(!headers.contains("x-forged"));
    }

    #[test]
    fn a_value_that_is_not_text_is_bytes_only() {
        let mut headers = Headers::new();
        headers.append("x-raw", vec![0xff, 0xfe]);
        assert_eq!(headers.get("x-raw"), None);
        assert_eq!(headers.get_bytes("x-raw"), Some([0xff, 0xfe].as_slice()));
    }
}
