//! Plans and runs a query within a memory limit; Ctrl-C stops it.

use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast;
use futures_util::StreamExt;
use program::{Interrupted, UsageError};
use tokio::runtime::Runtime;

use crate::distributed::Workers;
use crate::folder::{Folder, TABLES};
use crate::threads;

/// Interval of the checks for Ctrl-C.
const POLL: Duration = Duration::from_millis(50);

/// Interval of the progress lines of a long query.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The schema of the tables that describe tables.
const CATALOGUE: &str = "information_schema";

const ONLY_READS: &str = "only statements that read data are allowed: SELECT, EXPLAIN, SHOW, DESCRIBE";

/// DataFusion and its threads.
pub(crate) struct Engine {
    context: SessionContext,
    /// `None` only while dropping.
    runtime: Option<Runtime>,
    /// Memory limit, MB.
    memory: u32,
}

/// The rows of a running query.
pub(crate) struct Rows<'a> {
    engine: &'a Engine,
    schema: SchemaRef,
    /// `None` after the last row.
    stream: Option<SendableRecordBatchStream>,
}

impl Engine {
    /// An engine with a memory limit in MB, which leaves the work to workers, if there are any.
    ///
    /// # Errors
    /// A worker cannot be reached, or is another program than this one.
    pub(crate) fn new(memory: u32, workers: Option<Workers>) -> Result<Self> {
        let pool = FairSpillPool::new((memory as usize) << 20);
        let environment = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).build_arc()?;
        let config = SessionConfig::new()
            .with_information_schema(true)
            // As in DuckDB, so that a query gives the same rows there.
            .set_str("datafusion.sql_parser.default_null_ordering", "nulls_last");
        let context = SessionContext::new_with_config_rt(config, environment);
        let mut engine = Self { context, runtime: Some(threads::start()?), memory };
        if let Some(workers) = workers {
            let state = engine.context.state();
            engine.context = SessionContext::new_with_state(engine.wait(workers.take_over(state))?);
        }
        Ok(engine)
    }

    /// Starts a query, which may only read.
    ///
    /// # Errors
    /// [`UsageError`] for a query that does not parse, would write, or uses tables or columns that do not exist.
    pub(crate) fn query(&self, text: &str, folder: &Folder) -> Result<Rows<'_>> {
        let statement = self.parse(text)?;
        self.register(&statement, folder)?;
        let context = self.context.clone();
        let stream = self.wait(async move {
            let plan = context.state().statement_to_plan(statement).await?;
            // Rejects statements that write but look like queries, such as SELECT INTO.
            let reads =
                SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
            reads.verify_plan(&plan).map_err(|_| DataFusionError::Plan(ONLY_READS.to_owned()))?;
            context.execute_logical_plan(plan).await?.execute_stream().await
        })?;
        Ok(Rows { engine: self, schema: stream.schema(), stream: Some(stream) })
    }

    /// Parses a query, which must be a single statement.
    fn parse(&self, text: &str) -> Result<Statement> {
        let mut statements = DFParser::parse_sql(text).map_err(|error| self.explain(&error))?;
        let (Some(statement), None) = (statements.pop_front(), statements.pop_front()) else {
            return Err(UsageError("the query must be exactly one statement".to_owned()).into());
        };
        if !only_reads(&statement) {
            return Err(UsageError(ONLY_READS.to_owned()).into());
        }
        Ok(statement)
    }

    /// Registers the tables that a statement reads, or all tables for a statement about tables.
    fn register(&self, statement: &Statement, folder: &Folder) -> Result<()> {
        let named = self.context.state().resolve_table_references(statement);
        let named = named.map_err(|error| self.explain(&error))?;
        if is_show(statement) || named.iter().any(|table| table.schema() == Some(CATALOGUE)) {
            let producers = folder.producers()?;
            for name in TABLES.into_iter().chain(producers.iter().map(String::as_str)) {
                if let Some(Ok(rows)) = folder.table(name)?.map(|table| table.rows) {
                    self.context.register_table(name, rows)?;
                }
            }
        }
        for name in named
            .iter()
            .filter(|table| table.schema() != Some(CATALOGUE))
            .map(datafusion::common::TableReference::table)
        {
            let Some(table) = folder.table(name)? else {
                // A table function such as generate_series needs no file.
                if self.context.table_function(name).is_ok() {
                    continue;
                }
                let mut tables = TABLES.map(str::to_owned).to_vec();
                tables.extend(folder.producers()?);
                let line = format!("there is no table {name}; the tables are {}", tables.join(", "));
                return Err(UsageError(line).into());
            };
            let rows = table.rows.map_err(|why| anyhow!("cannot read the table {name}: {why}"))?;
            if let Some(note) = table.note {
                eprintln!("note: {note}");
            }
            self.context.register_table(name, rows)?;
        }
        Ok(())
    }

    /// Runs `work` on the engine's threads; returns an error at Ctrl-C.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, DataFusionError>> + Send + 'static,
    ) -> Result<T> {
        let runtime = self.runtime.as_ref().context("the query engine is not running")?;
        // The runtime's own timer is not checked while all threads are busy with a join, so this thread waits.
        let (sender, receiver) = mpsc::sync_channel(1);
        runtime.spawn(async move { sender.send(work.await) });
        let (started, mut lines) = (Instant::now(), 1);
        loop {
            match receiver.recv_timeout(POLL) {
                Ok(done) => return done.map_err(|error| self.explain(&error)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the query engine stopped unexpectedly"),
            }
            if program::interrupted() {
                bail!(Interrupted::new("the query is not finished"));
            }
            if started.elapsed() > LINE_EVERY * lines {
                eprintln!("querying: {} s", started.elapsed().as_secs());
                lines += 1;
            }
        }
    }

    /// The engine's error as one line.
    fn explain(&self, error: &DataFusionError) -> Error {
        let line = match error.find_root() {
            DataFusionError::SQL(error, _) => {
                let text = error.to_string();
                format!("SQL syntax: {}", text.strip_prefix("sql parser error: ").unwrap_or(&text))
            }
            DataFusionError::SchemaError(error, _) => error.to_string(),
            DataFusionError::Plan(what) | DataFusionError::NotImplemented(what) => what.clone(),
            DataFusionError::ResourcesExhausted(_) => {
                return anyhow!(
                    "the query needs more than {} MB; increase --memory or select fewer rows",
                    self.memory
                );
            }
            DataFusionError::External(error) => return anyhow!("{error}"),
            other => return anyhow!("the query failed: {}", other.strip_backtrace()),
        };
        UsageError(line).into()
    }
}

impl Drop for Engine {
    /// Does not wait for threads that still work on a stopped query.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Rows<'_> {
    /// The columns of the rows.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The next rows; `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(mut stream) = self.stream.take() else { return Ok(None) };
        let (stream, batch) = self.engine.wait(async move {
            let batch = stream.next().await.transpose()?;
            Ok((stream, batch))
        })?;
        if batch.is_some() {
            self.stream = Some(stream);
        }
        Ok(batch)
    }
}

fn only_reads(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(statement) => match &**statement {
            ast::Statement::Explain { statement, .. } => matches!(**statement, ast::Statement::Query(_)),
            ast::Statement::Query(_) | ast::Statement::ExplainTable { .. } => true,
            _ => is_show_of(statement),
        },
        Statement::Explain(explain) => only_reads(&explain.statement),
        _ => false,
    }
}

fn is_show(statement: &Statement) -> bool {
    matches!(statement, Statement::Statement(statement) if is_show_of(statement))
}

fn is_show_of(statement: &ast::Statement) -> bool {
    use ast::Statement::{ShowColumns, ShowFunctions, ShowTables, ShowVariable};
    matches!(statement, ShowTables { .. } | ShowColumns { .. } | ShowFunctions { .. } | ShowVariable { .. })
}
