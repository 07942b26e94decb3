//! `tovuk:state/store`: the State of the worker's service. The store checks every limit; here names become numbers and bytes change hands. Within a call
//! of an object's handler, what is done to that object goes to the session that the call has.

use tovuk_kernel::codes::Code;
use tovuk_kernel::resource::Kind;
use tovuk_resources::state::{self, Change, List, Namespace, Page, Schedule, Session, State, Target, Written};
use wasmtime::component::Linker;

use super::Whole;
use super::data::{error, told};
use crate::data_bindings::tovuk::data::types;
use crate::data_bindings::tovuk::state::store;
use crate::instance::Data;
use crate::spans;

/// The object that a call has for itself, with what it has done to it.
pub(crate) struct OwnObject {
    /// Which one.
    pub target: Target,
    /// What it has done.
    pub session: Session,
}

impl Data {
    /// The store, which charges the service.
    fn state(&self) -> Result<State, types::Error> {
        Ok(self.stores()?.state.billed_to(self.invocation.deployment.bill.clone()))
    }

    /// The object that the guest names.
    fn object(&self, class: &str, object: String) -> Result<Target, types::Error> {
        let namespace = Namespace(self.resource(Kind::State, class)?);
        let owner = &self.grants().owner;
        Ok(Target { namespace, object: object.into(), account: owner.account, plan: owner.plan, holds: self.invocation.holds.clone() })
    }

    /// The session of the call, if it has this object.
    fn session(&mut self, target: &Target) -> Option<&mut Session> {
        let own = self.own_object.as_mut()?;
        (own.target.namespace == target.namespace && own.target.object == target.object).then_some(&mut own.session)
    }
}

/// What the guest is told.
fn refused(refused: state::Error) -> types::Error {
    let (code, text) = state_told(&refused);
    error(code, text)
}

/// The code and the text of an error of State.
pub(crate) fn state_told(refused: &state::Error) -> (&'static Code, String) {
    told("State", refused.code(), refused, matches!(refused, state::Error::Database(_)))
}

fn list_of(options: store::ListOptions) -> List {
    List { prefix: options.prefix, limit: options.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)), cursor: options.cursor }
}

fn page_of(page: Page<state::Listed>) -> store::KeyPage {
    let keys = page.items.into_iter().map(|key| store::Key { name: key.name, value_bytes: key.value_bytes });
    store::KeyPage { keys: keys.collect(), cursor: page.next_cursor }
}

fn alarm_of(alarm: state::AlarmInfo) -> store::Alarm {
    store::Alarm { scheduled_ms: alarm.scheduled_at, next_ms: alarm.next_at, retry_count: alarm.retry_count }
}

/// Does something to an object: in the session of the call that has it, or by itself.
macro_rules! on {
    ($data:ident, $target:ident, $operation:ident($($argument:expr),*)) => {
        match $data.session(&$target) {
            Some(session) => session.$operation($($argument),*).await,
            None => $data.state()?.$operation(&$target, $($argument),*).await.map(|answer| answer.value),
        }
        .map_err(refused)
    };
}

impl store::Host for Data {
    async fn get(&mut self, class: String, object: String, key: String) -> Result<Option<Vec<u8>>, types::Error> {
        self.span("state.get", &class)
            .telling(|found: &Option<Vec<u8>>| spans::found(found.as_ref().map(Vec::len)), async move {
                let target = self.object(&class, object)?;
                Ok(on!(self, target, get(&key))?.map(Into::into))
            })
            .await
    }

    async fn put(&mut self, class: String, object: String, key: String, value: Vec<u8>) -> Result<(), types::Error> {
        self.span("state.put", &class)
            .of(async move {
                let target = self.object(&class, object)?;
                let value = self.held(value)?;
                on!(self, target, put(&key, value))
            })
            .await
    }

    async fn delete(&mut self, class: String, object: String, key: String) -> Result<bool, types::Error> {
        self.span("state.delete", &class)
            .telling(|existed| if *existed { "deleted it" } else { "found nothing" }.to_owned(), async move {
                let target = self.object(&class, object)?;
                match self.session(&target) {
                    Some(session) => session.delete(&key).await,
                    None => self.state()?.delete_value(&target, &key).await.map(|answer| answer.value),
                }
                .map_err(refused)
            })
            .await
    }

    async fn compare_and_set(
        &mut self,
        class: String,
        object: String,
        key: String,
        expected: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
    ) -> Result<store::Swapped, types::Error> {
        self.span("state.compare-and-set", &class)
            .telling(|answer: &store::Swapped| if answer.swapped { "swapped" } else { "found another value" }.to_owned(), async move {
                let target = self.object(&class, object)?;
                let expected = expected.map(|value| self.held(value)).transpose()?;
                let value = value.map(|value| self.held(value)).transpose()?;
                let swapped = on!(self, target, compare_and_set(&key, expected, value))?;
                Ok(store::Swapped { swapped: swapped.swapped, found: swapped.found.map(Into::into) })
            })
            .await
    }

    async fn increment(&mut self, class: String, object: String, key: String, delta: i64) -> Result<i64, types::Error> {
        self.span("state.increment", &class)
            .of(async move {
                let target = self.object(&class, object)?;
                on!(self, target, increment(&key, delta))
            })
            .await
    }

    async fn write(&mut self, class: String, object: String, changes: Vec<store::Change>) -> Result<Option<String>, types::Error> {
        self.span("state.write", &class)
            .telling(|refused: &Option<String>| if refused.is_none() { "wrote all" } else { "found another value" }.to_owned(), async move {
                let target = self.object(&class, object)?;
                let change_of = |change: store::Change| {
                    Ok(match change {
                        store::Change::Put((key, value)) => Change::Put { key, value: self.held(value)? },
                        store::Change::Delete(key) => Change::Delete { key },
                        store::Change::Expect((key, value)) => Change::Expect { key, value: value.map(|value| self.held(value)).transpose()? },
                    })
                };
                let changes = changes.into_iter().map(change_of).collect::<Result<Vec<_>, types::Error>>()?;
                Ok(match on!(self, target, write(changes))? {
                    Written::All => None,
                    Written::Refused(key) => Some(key),
                })
            })
            .await
    }

    async fn list(&mut self, class: String, object: String, options: store::ListOptions) -> Result<store::KeyPage, types::Error> {
        self.span("state.list", &class)
            .telling(|page: &store::KeyPage| spans::counted(page.keys.len(), "key"), async move {
                let target = self.object(&class, object)?;
                let list = list_of(options);
                on!(self, target, keys(list)).map(page_of)
            })
            .await
    }

    async fn objects(&mut self, class: String, options: store::ListOptions) -> Result<store::ObjectPage, types::Error> {
        self.span("state.objects", &class)
            .telling(|page: &store::ObjectPage| spans::counted(page.objects.len(), "object"), async move {
                let namespace = Namespace(self.resource(Kind::State, &class)?);
                let page = self.state()?.objects(namespace, list_of(options)).await.map_err(refused)?;
                let objects = page.items.into_iter().map(|object| store::Object {
                    name: object.name,
                    values: object.counts.values,
                    bytes: object.counts.bytes,
                    alarm_ms: object.alarm,
                });
                Ok(store::ObjectPage { objects: objects.collect(), cursor: page.next_cursor })
            })
            .await
    }

    async fn get_alarm(&mut self, class: String, object: String) -> Result<Option<store::Alarm>, types::Error> {
        self.span("state.get-alarm", &class)
            .of(async move {
                let target = self.object(&class, object)?;
                Ok(on!(self, target, alarm())?.map(alarm_of))
            })
            .await
    }

    async fn set_alarm(&mut self, class: String, object: String, schedule: store::Schedule) -> Result<u64, types::Error> {
        self.span("state.set-alarm", &class)
            .of(async move {
                let target = self.object(&class, object)?;
                let schedule = match schedule {
                    store::Schedule::InSeconds(seconds) => Schedule::InSeconds(seconds),
                    store::Schedule::AtMs(at) => Schedule::At(at),
                };
                on!(self, target, set_alarm(schedule))
            })
            .await
    }

    async fn delete_alarm(&mut self, class: String, object: String) -> Result<bool, types::Error> {
        self.span("state.delete-alarm", &class)
            .of(async move {
                let target = self.object(&class, object)?;
                on!(self, target, delete_alarm())
            })
            .await
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    store::add_to_linker::<Data, Whole>(linker, |data| data)
}
