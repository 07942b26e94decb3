//! Whole lists, page by page, for doors that are asked for no limit.

use tovuk_kernel::limits::{STATE_LIST_KEYS_MAX, STATE_PAGE_KEYS_MAX};

use super::{Answer, Error, List, Listed, ListedObject, Namespace, Page, State, Target};

/// What is left of a list.
struct Rest {
    /// What is asked for next.
    list: Option<List>,
    items: usize,
}

impl Rest {
    fn new(prefix: String, cursor: Option<String>) -> Self {
        Self { list: Some(List { prefix, limit: None, cursor }), items: STATE_LIST_KEYS_MAX }
    }

    fn next(&mut self) -> Option<List> {
        let mut list = self.list.take()?;
        list.limit = Some(self.items.min(STATE_PAGE_KEYS_MAX));
        Some(list)
    }

    fn follow<T>(&mut self, mut list: List, page: &Page<T>) {
        self.items = self.items.saturating_sub(page.items.len());
        if page.has_more && self.items > 0 {
            list.cursor.clone_from(&page.next_cursor);
            self.list = Some(list);
        }
    }
}

/// The keys of an object, page by page. The last page says by `has_more` and `next_cursor` whether the list went on.
pub struct KeyPages {
    state: State,
    target: Target,
    rest: Rest,
}

/// The objects of a namespace, page by page. The last page says by `has_more` and `next_cursor` whether the list went on.
pub struct ObjectPages {
    state: State,
    namespace: Namespace,
    rest: Rest,
}

impl State {
    /// All keys of an object in pages. The list ends after 100,000 keys. Calls of the object can come between two pages.
    pub fn key_pages(&self, target: &Target, prefix: String, cursor: Option<String>) -> KeyPages {
        KeyPages { state: self.clone(), target: target.clone(), rest: Rest::new(prefix, cursor) }
    }

    /// All objects of a namespace in pages. The list ends after 100,000 objects.
    pub fn object_pages(&self, namespace: Namespace, prefix: String, cursor: Option<String>) -> ObjectPages {
        ObjectPages { state: self.clone(), namespace, rest: Rest::new(prefix, cursor) }
    }
}

impl KeyPages {
    /// The next page; none after the last, or after an error.
    pub async fn next(&mut self) -> Option<Result<Answer<Page<Listed>>, Error>> {
        let list = self.rest.next()?;
        let page = self.state.keys(&self.target, list.clone()).await;
        if let Ok(page) = &page {
            self.rest.follow(list, &page.value);
        }
        Some(page)
    }
}

impl ObjectPages {
    /// The next page; none after the last, or after an error.
    pub async fn next(&mut self) -> Option<Result<Page<ListedObject>, Error>> {
        let list = self.rest.next()?;
        let page = self.state.objects(self.namespace, list.clone()).await;
        if let Ok(page) = &page {
            self.rest.follow(list, page);
        }
        Some(page)
    }
}
