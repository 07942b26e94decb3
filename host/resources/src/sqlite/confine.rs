//! What a tenant's SQL may do: everything inside its own file, and nothing outside it. SQLite asks here while it prepares a statement, and when a
//! schema change makes it prepare one again.

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::hooks::AuthAction;
use rusqlite::limits::Limit;
use tovuk_kernel::limits;

/// Tables of the host in a tenant's file begin so. Tenants may read them.
pub(super) const OWN_TABLES: &str = "_tovuk_";

/// Pragmas that may be read, also with an argument where it names a table or an index.
const PRAGMAS_READ: &[&str] = &[
    "application_id",
    "auto_vacuum",
    "collation_list",
    "compile_options",
    "data_version",
    "defer_foreign_keys",
    "encoding",
    "foreign_keys",
    "freelist_count",
    "function_list",
    "incremental_vacuum",
    "journal_mode",
    "max_page_count",
    "module_list",
    "optimize",
    "page_count",
    "page_size",
    "pragma_list",
    "schema_version",
    "synchronous",
    "user_version",
];
/// Pragmas whose argument only says what they show.
const PRAGMAS_ABOUT: &[&str] = &[
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
];
/// Pragmas that may be set: they end with the transaction, or change the tenant's own file only.
const PRAGMAS_SET: &[&str] = &["defer_foreign_keys", "incremental_vacuum", "optimize", "user_version"];
/// Modules of virtual tables that may be created.
pub(super) const MODULES: &[&str] = &["fts5", "fts5vocab"];
/// Tables that are part of the library and show more than rows: pages of the file, or other connections' statements.
const TABLES_REFUSED: &[&str] =
    &["dbstat", "sqlite_dbpage", "sqlite_dbdata", "sqlite_dbptr", "sqlite_stmt", "fts3tokenize", "bytecode", "tables_used"];
/// Functions that reach outside the file, take pointers as values, or take time with the square of their arguments and cannot be interrupted.
const FUNCTIONS_REFUSED: &[&str] =
    &["load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "fts5", "rtreecheck", "sqlite_log", "json_patch", "jsonb_patch"];

/// Sets what does not depend on the statement.
pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    for (setting, value) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true),
    ] {
        connection.set_db_config(setting, value)?;
    }
    let figure = |bound: u32| i32::try_from(bound).unwrap_or(i32::MAX);
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_LENGTH, figure(limits::SQLITE_VALUE_BYTES_MAX)),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, figure(limits::SQLITE_SQL_BYTES_MAX)),
        (Limit::SQLITE_LIMIT_COLUMN, figure(limits::SQLITE_COLUMNS_MAX)),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, figure(limits::SQLITE_PARAMS_MAX)),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, figure(limits::SQLITE_LIKE_PATTERN_BYTES_MAX)),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 200),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 32),
        (Limit::SQLITE_LIMIT_FUNCTION_ARG, 100),
        (Limit::SQLITE_LIMIT_VDBE_OP, 250_000),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, value)?;
    }
    Ok(())
}

/// Whether a statement may do this; why not, if it may not.
pub(super) fn check(action: &AuthAction<'_>) -> Result<(), String> {
    match *action {
        AuthAction::Select | AuthAction::Recursive | AuthAction::Reindex { .. } | AuthAction::Analyze { .. } | AuthAction::DropView { .. } => Ok(()),
        AuthAction::CreateView { view_name: name } => own(name),
        AuthAction::CreateTable { table_name }
        | AuthAction::DropTable { table_name }
        | AuthAction::AlterTable { table_name, .. }
        | AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::CreateIndex { table_name, .. }
        | AuthAction::DropIndex { table_name, .. }
        | AuthAction::CreateTrigger { table_name, .. }
        | AuthAction::DropTrigger { table_name, .. } => own(table_name),
        AuthAction::Read { table_name, .. } if named(TABLES_REFUSED, table_name) => Err(format!("the table {table_name}")),
        AuthAction::Read { .. } => Ok(()),
        AuthAction::CreateVtable { table_name, module_name } | AuthAction::DropVtable { table_name, module_name } => {
            own(table_name)?;
            if named(MODULES, module_name) { Ok(()) } else { Err(format!("virtual tables of {module_name}; fts5 is there")) }
        }
        AuthAction::Function { function_name } if named(FUNCTIONS_REFUSED, function_name) => Err(format!("the function {function_name}")),
        AuthAction::Function { .. } => Ok(()),
        AuthAction::Pragma { pragma_name, pragma_value } => pragma(pragma_name, pragma_value),
        AuthAction::Transaction { .. } => {
            Err("BEGIN, COMMIT and ROLLBACK; send the statements as one batch, or use an interactive transaction".to_owned())
        }
        AuthAction::Savepoint { .. } => Err("savepoints; send the statements as one batch, which is one transaction".to_owned()),
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            Err("ATTACH, DETACH and VACUUM; space comes back with `PRAGMA incremental_vacuum`, and backups have a command".to_owned())
        }
        AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. }
        | AuthAction::DropTempIndex { .. }
        | AuthAction::DropTempTable { .. }
        | AuthAction::DropTempTrigger { .. }
        | AuthAction::DropTempView { .. } => Err("temporary tables, because connections are shared; use WITH, or a table".to_owned()),
        _ => Err("this kind of statement".to_owned()),
    }
}

/// Whether it is the pragma that switches foreign keys. Inside a transaction that has no effect.
pub(super) fn sets_foreign_keys(action: &AuthAction<'_>) -> bool {
    matches!(action, AuthAction::Pragma { pragma_name, .. } if pragma_name.eq_ignore_ascii_case("foreign_keys"))
}

fn named(list: &[&str], name: &str) -> bool {
    list.iter().any(|entry| entry.eq_ignore_ascii_case(name))
}

fn own(table: &str) -> Result<(), String> {
    let hosts = table.get(..OWN_TABLES.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_TABLES));
    if hosts { Err(format!("changes of {table}: tables whose names begin with {OWN_TABLES} are the host's")) } else { Ok(()) }
}

fn pragma(name: &str, value: Option<&str>) -> Result<(), String> {
    let allowed = named(PRAGMAS_ABOUT, name) || named(if value.is_some() { PRAGMAS_SET } else { PRAGMAS_READ }, name);
    match value {
        _ if allowed => Ok(()),
        Some(_) if name.eq_ignore_ascii_case("foreign_keys") => Err("setting foreign_keys, which are on but in a migration that switches them off; \
             `PRAGMA defer_foreign_keys = on` checks them at the end of the transaction"
            .to_owned()),
        Some(_) if named(PRAGMAS_READ, name) => Err(format!("setting the pragma {name}")),
        _ => Err(format!("the pragma {name}")),
    }
}
