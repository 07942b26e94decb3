//! Lists that the host answers page by page.

use crate::DataError;

/// What begins with a prefix, one after the other.
#[derive(Clone, Debug)]
pub struct Paged<T> {
    prefix: String,
    page: std::vec::IntoIter<T>,
    /// After which cursor the next page begins; none for the first. None of either when there is no next page.
    next: Option<Option<String>>,
}

impl<T> Paged<T> {
    /// The list of what begins with this prefix.
    pub fn new(prefix: String) -> Self {
        Self { prefix, page: Vec::new().into_iter(), next: Some(None) }
    }

    /// The next entry. `read` asks for a page of a prefix after a cursor, and returns it with the cursor behind it. The list ends after an error.
    pub fn next(&mut self, read: impl Fn(&str, Option<&str>) -> Result<(Vec<T>, Option<String>), DataError>) -> Option<Result<T, DataError>> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            let cursor = self.next.take()?;
            match read(&self.prefix, cursor.as_deref()) {
                Ok((entries, cursor)) => {
                    self.page = entries.into_iter();
                    self.next = cursor.map(Some);
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
