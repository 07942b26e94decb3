//! SQLite databases of a service, and the SQL that is run in them. The store confines it and checks every limit; here names become numbers, and numbers
//! become files.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::limits::{API_SQLITE_BODY_BYTES_MAX, Plan};
use tovuk_kernel::meters::Meter;
use tovuk_kernel::operation::{Access, Argument, Command, Form, Method, Operation, Request};
use tovuk_kernel::resource::Kind;
use tovuk_resources::sqlite::{self, Allowance, Flat, Sqlites};

use super::note;
use super::resources::{self, ResourceEntry};
use super::services::ResourcesResponse;
use super::sqlite_params::{StatementEntry, Statements};
use crate::control::handler::Handler;
use crate::control::store::resources::{self as rows, Resource};
use crate::control::store::{accounts, services};
use crate::control::{Caller, Control, Refusal, service_for};

/// A database that the caller may use.
pub(super) struct Database {
    /// The row of its service.
    pub service: services::Service,
    /// Its own row.
    pub row: Resource,
    /// The plan of its account.
    pub plan: Plan,
}

impl Database {
    /// The one of this name or id.
    pub async fn find(control: &Control, caller: &Caller, service: String, name: String) -> Result<Self, Refusal> {
        let caller = caller.clone();
        let found = control.read(move |conn| {
            let service = service_for(conn, &caller, &service)?;
            let row = resources::find(conn, &service, Kind::Sqlite, &name)?;
            let plan = accounts::get(conn, service.account_id)?.map(|account| account.plan).unwrap_or_default();
            Ok(Self { service, row, plan })
        });
        found.await
    }

    /// What the store knows it by.
    pub fn number(&self) -> u64 {
        self.row.number.cast_unsigned()
    }

    /// The store, for its service, which is charged.
    pub fn store(&self, control: &Control) -> Sqlites {
        store(control, self.service.account_id, self.service.id)
    }

    /// What it may take.
    pub fn allowance(&self) -> Allowance {
        Allowance::of(self.plan)
    }
}

fn store(control: &Control, account: i64, service: i64) -> Sqlites {
    control.sqlite().for_service(account, service).billed_to(control.bill(account, service))
}

/// Makes the files of databases whose rows are there. It can be repeated, and does not bring back one that was deleted meanwhile.
pub(crate) async fn make(control: &Control, made: &[Resource]) -> Result<(), Refusal> {
    for database in made.iter().filter(|resource| resource.kind == Kind::Sqlite) {
        control.sqlite().create(database.number.cast_unsigned()).await?;
    }
    Ok(())
}

/// Applies those of these migrations that were not, to the database of this number.
pub(crate) async fn migrate(control: &Control, database: i64, plan: Plan, migrations: Vec<sqlite::Migration>) -> Result<sqlite::Migrated, Refusal> {
    let owner = control.read(move |conn| Ok(rows::owner_of(conn, Kind::Sqlite, database)?)).await?;
    let (account, service) = owner.ok_or(sqlite::Error::NotFound)?;
    Ok(store(control, account, service).migrate(database.cast_unsigned(), Allowance::of(plan), migrations).await?)
}

pub(super) const DATABASE: Argument = Argument::positional("database", "The database, by name or id");

/// Makes a database.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Create {
    /// The service.
    pub service: String,
    /// What its worker calls the database. `TOVUK_SQLITE_<NAME>` receives its id.
    pub name: String,
}

/// A database that was made.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SqliteDatabaseCreated")]
pub struct Created {
    /// The database.
    pub database: ResourceEntry,
    /// The resources of the service.
    #[serde(flatten)]
    pub resources: ResourcesResponse,
}

impl Request for Create {
    const OPERATION: Operation = Operation::new("sqlite.create", Method::Post, "/v1/services/{service}/sqlite/databases", "Make a SQLite database")
        .described("The worker finds it from its next deploy or restart on.")
        .status(201)
        .errors(&[&codes::INVALID_NAME, &codes::RESOURCE_EXISTS, &codes::RESOURCE_LIMIT])
        .commands(&[Command::new("sqlite create")
            .arguments(&[Argument::positional("name", "What the worker calls it, for example DB")])
            .examples(&["tovuk sqlite create --service service_1 DB"])]);
    type Response = Created;
}

impl Handler for Create {
    async fn run(self, control: Control, caller: Caller) -> Result<Created, Refusal> {
        let made = resources::make(&control, caller, Self::OPERATION.name, (self.service, Kind::Sqlite, self.name)).await?;
        if let Err(refusal) = make(&control, std::slice::from_ref(&made.resource)).await {
            // A host that ends before it has made the file makes it at its next start; one that cannot make it takes the row back.
            resources::unmake(&control, &made.resource).await?;
            return Err(refusal);
        }
        Ok(Created { database: made.resource.into(), resources: made.resources.complete(&control).await? })
    }
}

/// Deletes a database with its backups.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// The service.
    pub service: String,
    /// The database, by name or id.
    pub database: String,
}

impl Request for Delete {
    const OPERATION: Operation = Operation::new(
        "sqlite.delete",
        Method::Delete,
        "/v1/services/{service}/sqlite/databases/{database}",
        "Delete a SQLite database with its backups",
    )
    .described("Queries that run end first. Answers with what the service still has, and says so where the files are not gone yet.")
    .errors(&[&codes::RESOURCE_NOT_FOUND])
    .commands(&[Command::new("sqlite delete").arguments(&[DATABASE]).examples(&["tovuk sqlite delete --service service_1 DB"])]);
    type Response = ResourcesResponse;
}

impl Handler for Delete {
    async fn run(self, control: Control, caller: Caller) -> Result<ResourcesResponse, Refusal> {
        resources::remove(&control, caller, Self::OPERATION.name, (self.service, Kind::Sqlite, self.database)).await
    }
}

/// Runs SQL: either one statement, or several in one transaction.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Query {
    /// The service.
    pub service: String,
    /// The database, by name or id.
    pub database: String,
    /// The SQL of one statement.
    pub sql: Option<String>,
    /// Its parameters: an array for `?`, an object for `:name`. A blob is `{"base64": "..."}`, an integer beyond 2^53 `{"integer": "..."}`.
    #[schemars(with = "Option<Value>")]
    pub params: Option<Box<RawValue>>,
    /// In place of `sql`: up to 1,000 statements that are run in one transaction, all or none.
    pub statements: Option<Statements>,
}

/// What SQL answered, and what it cost.
#[derive(Debug)]
pub struct Answered(Flat);

impl Serialize for Answered {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// The fields of [`Answered`].
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "only its schema is of use")]
struct AnswerShape {
    /// Of one statement: the names of the columns. A second `id` is `id:2`.
    columns: Option<Vec<String>>,
    /// Of one statement: a row is an object by column. Blobs are `{"base64": "..."}`, integers beyond 2^53 `{"integer": "..."}`.
    rows: Option<Vec<serde_json::Map<String, Value>>>,
    /// Of one statement: the rowid of the last row that was inserted; of use after an INSERT only.
    last_insert_rowid: Option<Value>,
    /// Of a batch: for each statement its columns, rows, costs and last rowid.
    results: Option<Vec<serde_json::Map<String, Value>>>,
    /// Rows that were visited in tables and indexes.
    rows_read: u64,
    /// Rows that were inserted, updated or deleted.
    rows_written: u64,
    /// Steps of SQLite's virtual machine.
    vm_steps: u64,
    /// Rows that were visited by going through a whole table.
    fullscan_steps: u64,
    /// The database and its backups, in bytes.
    storage_bytes: u64,
    /// How long it ran, in ms, without the wait for its turn.
    duration_ms: f64,
    /// What would make it cheaper.
    next_actions: Vec<String>,
}

impl JsonSchema for Answered {
    fn schema_name() -> Cow<'static, str> {
        "SqliteAnswer".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = AnswerShape::json_schema(generator);
        schema.insert("description".to_owned(), "What SQL answered, and what it cost.".into());
        schema
    }
}

pub(super) const QUERY_ERRORS: &[&Code] = &[
    &codes::RESOURCE_NOT_FOUND,
    &codes::SQLITE_QUERY_FAILED,
    &codes::SQLITE_CONSTRAINT,
    &codes::SQLITE_FORBIDDEN,
    &codes::SQLITE_BUDGET_EXCEEDED,
    &codes::SQLITE_STORAGE_FULL,
    &codes::SQLITE_BUSY,
    &codes::STORAGE_FAILED,
];

impl Request for Query {
    const OPERATION: Operation = Operation::new("sqlite.query", Method::Post, "/v1/services/{service}/sqlite/{database}/query", "Run SQL in a database")
        .described(
            "Send `sql`, with `params`, or `statements`. What was written is on disk when it answers; of what fails nothing is left. A statement can reach \
             its own database only, and ends when it takes more than its limits. The answer to `sql` has `columns` and `rows`, that to `statements` a list \
             of `results`.",
        )
        .access(Access::Runtime)
        .body_bytes_max(API_SQLITE_BODY_BYTES_MAX)
        .errors(QUERY_ERRORS).meters(&[Meter::SqliteRowsRead, Meter::SqliteRowsWritten, Meter::SqliteStorageBytes])
        .commands(&[
            Command::new("sqlite query")
                .arguments(&[
                    DATABASE,
                    Argument::positional("sql", "The SQL").form(Form::Words),
                    Argument::flag("params", "params", "A JSON array of parameters for `?`, or an object for `:name`").form(Form::Json),
                ])
                .examples(&[
                    "tovuk sqlite query --service service_1 DB \"select 1\"",
                    "tovuk sqlite query --service service_1 DB \"select * from users where id = ?\" --params '[7]'",
                ]),
            Command::new("sqlite batch")
                .arguments(&[
                    DATABASE,
                    Argument::either("statements", "statements", "A JSON array of {\"sql\", \"params\"}").form(Form::Json),
                ])
                .examples(&["tovuk sqlite batch --service service_1 DB '[{\"sql\":\"insert into users (name) values (?)\",\"params\":[\"Ada\"]}]'"]),
        ]);
    type Response = Answered;
}

impl Handler for Query {
    async fn run(self, control: Control, caller: Caller) -> Result<Answered, Refusal> {
        let invalid = |text: &str| Refusal::new(&codes::INVALID_REQUEST, text);
        let database = Database::find(&control, &caller, self.service, self.database).await?;
        let (store, number, allowance) = (database.store(&control), database.number(), database.allowance());
        // It is given back when the statements are gone.
        let memory = control.runtime().memory().reserve();
        match (self.sql, self.statements) {
            (Some(sql), None) => {
                let statement = StatementEntry { sql, params: self.params }.read(&memory)?;
                Ok(Answered(Flat::Query(store.query(number, allowance, statement).await?)))
            }
            (None, Some(statements)) => {
                if self.params.is_some_and(|params| params.get() != "[]") {
                    return Err(invalid("`params` belong to `sql`; each of the `statements` has its own"));
                }
                let statements = statements.0.into_iter().map(|statement| statement.read(&memory)).collect::<Result<Vec<_>, _>>()?;
                Ok(Answered(Flat::Batch(store.batch(number, allowance, statements).await?)))
            }
            _ => Err(invalid("send either `sql` or `statements`")),
        }
    }
}

/// One migration.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "SqliteMigration")]
pub struct MigrationEntry {
    /// Its name, most often that of its file. It says which one it is, and must not change.
    pub name: String,
    /// Its statements.
    pub sql: String,
}

/// Applies migrations.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Migrate {
    /// The service.
    pub service: String,
    /// The database, by name or id.
    pub database: String,
    /// All migrations of the database, in order.
    pub migrations: Vec<MigrationEntry>,
}

/// What was applied.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SqliteMigrated")]
pub struct Migrated {
    /// The names of those that were applied now, in order.
    pub applied: Vec<String>,
    /// Rows that were visited in tables and indexes.
    pub rows_read: u64,
    /// Rows that were inserted, updated or deleted.
    pub rows_written: u64,
    /// The database and its backups, in bytes.
    pub storage_bytes: u64,
}

impl Request for Migrate {
    const OPERATION: Operation = Operation::new(
        "sqlite.migrate",
        Method::Post,
        "/v1/services/{service}/sqlite/{database}/migrations",
        "Apply migrations once each, in order",
    )
    .described(
        "Send all migrations of the database. Those that were applied are passed over and have to be as they were; new ones have to come after \
                 them. Each is applied in a transaction of its own; when one fails, those before it stay. All of them \
                 together may run for 5 minutes; the same request again goes on where that ended.",
    )
    .body_bytes_max(API_SQLITE_BODY_BYTES_MAX)
    .errors(&[
        &codes::RESOURCE_NOT_FOUND,
        &codes::SQLITE_MIGRATION_REFUSED,
        &codes::SQLITE_QUERY_FAILED,
        &codes::SQLITE_CONSTRAINT,
        &codes::SQLITE_FORBIDDEN,
        &codes::SQLITE_BUDGET_EXCEEDED,
        &codes::SQLITE_STORAGE_FULL,
        &codes::SQLITE_BUSY,
    ])
    .meters(&[Meter::SqliteRowsRead, Meter::SqliteRowsWritten, Meter::SqliteStorageBytes])
    .commands(&[Command::new("sqlite migrate")
        .arguments(&[
            DATABASE,
            Argument::positional("migrations", "A folder: its files *.sql are applied in the order of their names").form(Form::Scripts),
        ])
        .examples(&["tovuk sqlite migrate --service service_1 DB migrations"])]);
    type Response = Migrated;
}

impl Handler for Migrate {
    async fn run(self, control: Control, caller: Caller) -> Result<Migrated, Refusal> {
        let database = Database::find(&control, &caller, self.service, self.database).await?;
        let migrations = self.migrations.into_iter().map(|MigrationEntry { name, sql }| sqlite::Migration { name, sql }).collect();
        let done = migrate(&control, database.row.number, database.plan, migrations).await?;
        if !done.applied.is_empty() {
            let (now, subject) = (control.now_ms(), format!("{}: {}", database.row.name, done.applied.join(", ")));
            control.write(move |conn| note(conn, &caller, Self::OPERATION.name, Some(database.service.id), &subject, now)).await?;
        }
        let sqlite::Migrated { applied, counts, storage_bytes } = done;
        Ok(Migrated { applied, rows_read: counts.rows_read, rows_written: counts.rows_written, storage_bytes })
    }
}
