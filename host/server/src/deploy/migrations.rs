//! Scripts that come with a deploy for its databases. They are applied when everything else about the build has succeeded and before the new version is
//! asked anything: the version that is live until then runs on with the new schema for a moment, so a change that it cannot live with takes two deploys.

use std::collections::BTreeMap;

use tovuk_kernel::limits::Plan;
use tovuk_kernel::resource::Kind;
use tovuk_kernel::{codes, project};
use tovuk_resources::sqlite::{Migration, check_migrations};

use crate::control::operations::sqlite;
use crate::control::store::resources;
use crate::control::{Control, Refusal};

/// The scripts of each database, by its name, in the order in which they are applied.
pub type Migrations = BTreeMap<String, Vec<Migration>>;

/// Refuses scripts for databases that nothing declares, declared folders without scripts, and lists that no database would take.
pub(super) fn check(service: &str, declared: &project::Service, migrations: &Migrations) -> Result<(), Refusal> {
    if let Some(database) = migrations.keys().find(|name| !declared.sqlite.contains_key(*name)) {
        let text = format!("there are migrations for `{database}`, and `{service}` declares no such database");
        return Err(Refusal::new(&codes::INVALID_REQUEST, text).instruct(format!("Add `sqlite = {{ {database} = {{}} }}` to `config`.")));
    }
    let expected = declared.sqlite.iter().find(|(name, settings)| settings.migrations.is_some() && !migrations.contains_key(*name));
    if let Some((database, _)) = expected {
        let text = format!("`{service}` declares a folder of migrations for `{database}`, and the request has none");
        let instruction = format!("Send `migrations.{database}`: [{{\"name\", \"sql\"}}] beside `config`. `tovuk deploy` does so.");
        return Err(Refusal::new(&codes::INVALID_REQUEST, text).instruct(instruction));
    }
    for (database, scripts) in migrations {
        check_migrations(scripts).map_err(|error| in_database(database, error.into()))?;
    }
    Ok(())
}

/// Says which database a refusal is about.
fn in_database(database: &str, refusal: Refusal) -> Refusal {
    Refusal { message: format!("database `{database}`: {}", refusal.message), ..refusal }
}

/// Applies what was not applied. Those of one database that come before a failed one stay; the live version stays as well.
pub(super) async fn apply(control: &Control, service: i64, plan: Plan, migrations: Migrations, mut told: impl FnMut(&str)) -> Result<(), Refusal> {
    for (database, scripts) in migrations {
        let name = database.clone();
        let found = control.read(move |conn| Ok(resources::find(conn, service, Kind::Sqlite, &name)?)).await?;
        let found = found.ok_or_else(|| Refusal::new(&codes::BUILD_FAILED, format!("the database `{database}` was deleted meanwhile")))?;
        let migrated = sqlite::migrate(control, found.number, plan, scripts).await.map_err(|refusal| in_database(&database, refusal))?;
        for name in &migrated.applied {
            told(&format!("database {database}: applied {name}"));
        }
    }
    Ok(())
}
