//! Medians, spreads and the tables that people read. Every measurement gives the same shape of JSON: `rows`, each with its `way` and
//! for each column the median, the least and the most of the rounds.

use std::time::Duration;

use serde_json::{Value, json};

/// The middle of them; of an even number, the lower one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// Microseconds at each of these thousandths; [`f64::NAN`] where nothing was measured.
pub(crate) fn at(latencies: &mut [Duration], thousandths: &[usize]) -> Vec<f64> {
    latencies.sort();
    let of = |part: &usize| {
        let place = latencies.len().checked_sub(1).map(|last| last * part / 1000);
        place.map_or(f64::NAN, |place| latencies[place].as_secs_f64() * 1e6)
    };
    thousandths.iter().map(of).collect()
}

/// One figure of each round, of each column and way.
pub(crate) struct Sheet {
    title: String,
    columns: Vec<Column>,
    /// By way, round and column.
    rows: Vec<(String, Vec<Vec<f64>>)>,
}

/// What a column is.
#[derive(Clone)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    /// Digits behind the point.
    pub(crate) digits: usize,
    /// The way to whose figures of this column ratios are shown.
    pub(crate) base: Option<&'static str>,
}

/// A column without ratios.
pub(crate) const fn column(name: &'static str, digits: usize) -> Column {
    Column {
        name,
        digits,
        base: None,
    }
}

/// A column with ratios to one way.
pub(crate) const fn to(base: &'static str, name: &'static str, digits: usize) -> Column {
    Column {
        name,
        digits,
        base: Some(base),
    }
}

impl Sheet {
    pub(crate) fn new(title: impl Into<String>, columns: &[Column]) -> Self {
        Self {
            title: title.into(),
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a round of a way.
    pub(crate) fn add(&mut self, way: &str, figures: Vec<f64>) {
        assert_eq!(figures.len(), self.columns.len(), "a figure for each column");
        if let Some((_, rounds)) = self.rows.iter_mut().find(|(name, _)| name == way) {
            rounds.push(figures);
        } else {
            self.rows.push((way.to_owned(), vec![figures]));
        }
    }

    fn each(&self, way: &str, column: usize) -> Option<Vec<f64>> {
        let (_, rounds) = self.rows.iter().find(|(name, _)| name == way)?;
        let each: Vec<f64> = rounds.iter().map(|round| round[column]).collect();
        each.iter().all(|figure| figure.is_finite()).then_some(each)
    }

    /// A figure as people read it: `median (least-most)`, and `xRATIO` where there is a base.
    fn cell(&self, way: &str, at: usize) -> String {
        let Some(each) = self.each(way, at) else {
            return "-".to_owned();
        };
        let column = &self.columns[at];
        let (digits, middle) = (column.digits, median(each.clone()));
        let mut cell = format!("{middle:.digits$}");
        if each.len() > 1 {
            let (least, most) = ends(&each);
            cell += &format!(" ({least:.digits$}-{most:.digits$})");
        }
        let base = column.base.filter(|base| *base != way);
        if let Some(base) = base.and_then(|base| self.each(base, at)) {
            cell += &format!(" x{:.2}", middle / median(base));
        }
        cell
    }

    /// Prints the table, in the Markdown of docs/benchmarks.md, and gives the figures.
    pub(crate) fn show(&self) -> Value {
        println!("\n{}\n", self.title);
        let head: Vec<&str> = self.columns.iter().map(|column| column.name).collect();
        println!("| | {} |", head.join(" | "));
        println!("|---|{}", "---|".repeat(head.len()));
        let mut rows = Vec::new();
        for (way, rounds) in &self.rows {
            let cells: Vec<String> = (0..head.len()).map(|at| self.cell(way, at)).collect();
            println!("| {way} | {} |", cells.join(" | "));
            let mut row = json!({ "way": way, "rounds": rounds });
            for (at, column) in self.columns.iter().enumerate() {
                if let Some(each) = self.each(way, at) {
                    let (least, most) = ends(&each);
                    row[column.name] = json!({ "median": median(each), "least": least, "most": most });
                }
            }
            rows.push(row);
        }
        json!({ "title": self.title, "columns": head, "rows": rows })
    }
}

fn ends(each: &[f64]) -> (f64, f64) {
    let least = each.iter().copied().fold(f64::INFINITY, f64::min);
    (least, each.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}
