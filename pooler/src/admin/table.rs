//! A table of the console: columns with names and types, rows of texts, and its form on the wire.

use pgwire::backend::{self, ColumnType, TransactionStatus};

/// The columns of a table.
pub type Columns = &'static [(&'static str, ColumnType)];

pub const TEXT: ColumnType = ColumnType::Text;
pub const INT4: ColumnType = ColumnType::Int4;
pub const INT8: ColumnType = ColumnType::Int8;
pub const NUMERIC: ColumnType = ColumnType::Numeric;
pub const BYTEA: ColumnType = ColumnType::Bytea;

/// One value; None is NULL.
pub type Cell = Option<String>;

/// Columns and rows.
#[derive(Clone, Debug)]
pub struct Table {
    pub columns: Columns,
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new(columns: Columns) -> Self {
        Table { columns, rows: Vec::new() }
    }

    /// A row has a value for each column.
    pub fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len(), "row of {:?}", self.columns);
        self.rows.push(row);
    }

    pub fn with_rows(columns: Columns, rows: impl IntoIterator<Item = Vec<Cell>>) -> Self {
        let mut table = Table::new(columns);
        rows.into_iter().for_each(|row| table.push(row));
        table
    }

    /// RowDescription to ReadyForQuery.
    pub fn to_messages(&self) -> Vec<u8> {
        let mut out = Vec::new();
        backend::row_description(&mut out, self.columns);
        for row in &self.rows {
            backend::data_row(&mut out, row.iter().map(|cell| cell.as_deref().map(str::as_bytes)));
        }
        backend::command_complete(&mut out, "SHOW");
        backend::ready_for_query(&mut out, TransactionStatus::Idle);
        out
    }
}

/// A value that is not NULL.
pub fn cell(value: impl ToString) -> Cell {
    Some(value.to_string())
}
