//! Slow queries from pg_stat_statements, and EXPLAIN of one statement, which never runs a write.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};
use tokio::sync::oneshot;
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::{Admin, Operator};
use crate::error::{Error, Problem};
use crate::extract::{Body, Params};
use crate::logic::explain::{self, Statement};
use crate::monitoring::timestamp;
use crate::settings::Database;
use crate::store::db::connect_options;
use crate::store::figures::SlowQuery;

const THRESHOLD_MS: f64 = 1000.0;
const QUERIES_MAX: i64 = 50;
/// A statement that is being analysed gets this long.
const ANALYZE_MAX: Duration = Duration::from_secs(5);
/// Postgres looks at its limit between steps only, and a step may take long; past this its connection is dropped.
const POSTGRES_END_MAX: Duration = Duration::from_secs(30);
const PARAMS_MAX: usize = 100;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SlowParams {
    pub threshold_ms: Option<f64>,
}

#[derive(Serialize, ToSchema)]
pub struct SlowQueries {
    pub threshold_ms: f64,
    pub queries: Vec<SlowQuery>,
    pub count: usize,
    pub timestamp: String,
    /// Only where they cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

#[derive(Deserialize, ToSchema)]
pub struct Analyze {
    pub query: String,
    #[schema(value_type = Option<Vec<Object>>)]
    pub params: Option<Vec<Value>>,
    /// Run it too, in a read-only transaction; needs `params` where the query has `$1`.
    #[serde(default)]
    pub analyze: bool,
}

#[derive(Serialize, ToSchema)]
pub struct Analyzed {
    /// As `EXPLAIN (FORMAT JSON)` gives it: a list with one plan.
    #[schema(value_type = Vec<Object>)]
    pub plan: Value,
    pub cost: Option<f64>,
    /// Only with `analyze`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_ms: Option<f64>,
    /// Whether the plan was made without knowing the parameters.
    pub generic_plan: bool,
    pub suggestions: Vec<String>,
}

/// Statements that are slow on average, slowest first.
#[utoipa::path(get, path = "/api/v1/monitoring/slow-queries", tag = "monitoring", params(SlowParams), responses(
    (status = 200, body = SlowQueries), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 422, body = Problem)))]
pub async fn slow(
    State(app): State<App>,
    _operator: Operator,
    Params(query): Params<SlowParams>,
) -> Result<Json<SlowQueries>, Error> {
    let threshold_ms = query.threshold_ms.unwrap_or(THRESHOLD_MS);
    if !threshold_ms.is_finite() || threshold_ms < 0.0 {
        return Err(Error::unprocessable("threshold_ms", "must be a number from 0"));
    }
    let found = app.store.figures().slow_queries(threshold_ms, QUERIES_MAX).await?;
    let note = found.is_none().then_some(
        "pg_stat_statements does not work here: it must be in shared_preload_libraries, and a superuser must have \
         said CREATE EXTENSION pg_stat_statements",
    );
    let queries = found.unwrap_or_default();
    Ok(Json(SlowQueries { threshold_ms, count: queries.len(), queries, timestamp: timestamp(), note }))
}

/// Explain one statement. Without `params` the plan is the one that fits any parameters.
#[utoipa::path(post, path = "/api/v1/monitoring/analyze-query", tag = "monitoring", request_body = Analyze, responses(
    (status = 200, body = Analyzed), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 422, body = Problem), (status = 503, body = Problem)))]
pub async fn analyze(
    State(app): State<App>,
    _admin: Admin,
    Body(mut asked): Body<Analyze>,
) -> Result<Json<Analyzed>, Error> {
    let wrong = |detail| Error::unprocessable("query", detail);
    asked.query = explain::without_lead(&asked.query).map_err(wrong)?.to_owned();
    let statement = explain::judge(&asked.query).map_err(wrong)?;
    if asked.analyze && statement == Statement::Writes {
        return Err(Error::unprocessable(
            "analyze",
            "a statement that writes is never run; leave analyze out",
        ));
    }
    if asked.analyze {
        explain::judge_run(&asked.query).map_err(wrong)?;
    }
    let params = asked.params.as_deref().map(literals).transpose()?;
    let (plan, generic_plan) = explain_within(&app, asked, params).await?;
    Ok(Json(Analyzed {
        cost: explain::cost(&plan),
        execution_ms: explain::execution_ms(&plan),
        generic_plan,
        suggestions: explain::suggestions(&plan),
        plan,
    }))
}

fn literals(params: &[Value]) -> Result<Vec<String>, Error> {
    if params.len() > PARAMS_MAX {
        return Err(Error::unprocessable("params", "at most 100"));
    }
    let written: Result<Vec<String>, _> = params.iter().map(explain::literal).collect();
    written.map_err(|detail| Error::unprocessable("params", detail))
}

/// Answers at the limit though Postgres may be in the middle of a step that it does not interrupt. There its own limit of
/// the same length ends the statement as soon as it can; until then nobody begins another one.
async fn explain_within(
    app: &App,
    asked: Analyze,
    params: Option<Vec<String>>,
) -> Result<(Value, bool), Error> {
    let one = Arc::clone(&app.limits.analysis)
        .try_acquire_owned()
        .map_err(|_| Error::unavailable("another statement is being analysed; try again when it is done"))?;
    let (answer, answered) = oneshot::channel();
    let database = app.settings.database.clone();
    app.tasks.spawn("analysis", async move {
        let explained = tokio::time::timeout(POSTGRES_END_MAX, explain_in(&database, &asked, params)).await;
        drop(one);
        // Nobody listens any more where the limit was reached.
        let _ = answer.send(explained.unwrap_or(Err(Error::TimedOut)));
    });
    match tokio::time::timeout(ANALYZE_MAX, answered).await {
        Ok(Ok(explained)) => explained,
        Ok(Err(_)) => Err(Error::unavailable("this replica is going away; ask another one")),
        Err(_) => Err(Error::unavailable(
            "the analysis took longer than the 5 s that it may and was given up; Postgres ends it too",
        )),
    }
}

/// Over a connection of its own to Postgres itself: what is prepared here must never stay in a pooled connection.
/// Gives the plan and whether it is the generic one.
async fn explain_in(
    database: &Database,
    asked: &Analyze,
    params: Option<Vec<String>>,
) -> Result<(Value, bool), Error> {
    let limits = Database { statement_timeout: ANALYZE_MAX, ..database.clone() };
    let options = connect_options(&database.direct, &limits, "arena analyze")
        .options([("default_transaction_read_only", "on")])
        // The statement and its parameters are the admin's, and may hold data: none of it goes to our log.
        .disable_statement_logging();
    let mut connection = PgConnection::connect_with(&options).await?;
    if asked.analyze {
        refuse_volatile(&mut connection, &asked.query).await?;
    }
    // Never committed: what a read-only transaction lets through is undone, too.
    sqlx::raw_sql("BEGIN READ ONLY").execute(&mut connection).await?;
    let explained = explain_with(&mut connection, asked, params).await;
    // Only a courtesy: the server ends with its connection anyway.
    let _ = connection.close().await;
    explained
}

/// Functions that change something are volatile, and some of them do so beyond any transaction.
async fn refuse_volatile(connection: &mut PgConnection, query: &str) -> Result<(), Error> {
    let words: Vec<String> = explain::words(query).into_iter().collect();
    let called: Option<String> = sqlx::query_scalar(
        "SELECT proname::text FROM pg_proc WHERE provolatile = 'v' AND lower(proname) = ANY($1) LIMIT 1",
    )
    .persistent(false)
    .bind(words)
    .fetch_optional(&mut *connection)
    .await?;
    match called {
        Some(name) => {
            let detail =
                format!("{name} may change something: a query that names it is never run; leave analyze out");
            Err(Error::unprocessable("query", detail))
        }
        None => Ok(()),
    }
}

async fn explain_with(
    connection: &mut PgConnection,
    asked: &Analyze,
    params: Option<Vec<String>>,
) -> Result<(Value, bool), Error> {
    // Sent as one extended-protocol statement: Postgres itself refuses a second one behind a semicolon.
    let prepare = format!("PREPARE analysed AS {}", asked.query);
    sqlx::query(AssertSqlSafe(prepare)).persistent(false).execute(&mut *connection).await.map_err(of_text)?;
    let needed: i32 = sqlx::query_scalar(
        "SELECT coalesce(array_length(parameter_types, 1), 0) FROM pg_prepared_statements WHERE name = 'analysed'",
    )
    .fetch_one(&mut *connection)
    .await?;
    let needed = usize::try_from(needed).unwrap_or(0);
    let generic = needed > 0 && params.is_none();
    if generic && asked.analyze {
        return Err(Error::unprocessable("params", "needed to run a query with parameters"));
    }
    let values = params.unwrap_or_else(|| vec!["NULL".to_owned(); needed]);
    if values.len() != needed {
        return Err(Error::unprocessable(
            "params",
            format!("the query has {needed}, given are {}", values.len()),
        ));
    }
    let mode = if generic { "force_generic_plan" } else { "force_custom_plan" };
    sqlx::query("SELECT set_config('plan_cache_mode', $1, false)")
        .bind(mode)
        .execute(&mut *connection)
        .await?;
    let arguments = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
    let options = if asked.analyze { "ANALYZE, BUFFERS, FORMAT JSON" } else { "FORMAT JSON" };
    let explain = format!("EXPLAIN ({options}) EXECUTE analysed{arguments}");
    let plan: Value = sqlx::query_scalar(AssertSqlSafe(explain))
        .persistent(false)
        .fetch_one(&mut *connection)
        .await
        .map_err(of_run)?;
    Ok((plan, generic))
}

/// What Postgres says about the text of a statement, before it has looked at any data, is for the admin to read.
fn of_text(error: sqlx::Error) -> Error {
    let said = error.as_database_error().map(|answer| answer.message().to_owned());
    match said {
        Some(message) => Error::unprocessable("query", message),
        None => error.into(),
    }
}

/// Whatever comes later may quote data, of any SQLSTATE: `(SELECT password_hash …)::int` is answered with the hash. Making
/// a plan may do so too, as it calls stable functions to guess how many rows there are.
fn of_run(error: sqlx::Error) -> Error {
    let Some(answer) = error.as_database_error() else { return error.into() };
    let code = answer.code().unwrap_or_default();
    if code == QUERY_CANCELED {
        return Error::unprocessable("query", "it ran longer than the 5 s that it may (SQLSTATE 57014)");
    }
    let detail = format!(
        "Postgres refused it with SQLSTATE {code}; its message may quote data of the tables and is not shown"
    );
    Error::unprocessable("query", detail)
}

const QUERY_CANCELED: &str = "57014";
