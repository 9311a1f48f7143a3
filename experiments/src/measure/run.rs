//! The loop that all measurements share: which cells have no record yet, what fits in memory,
//! progress, appending.

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use longspan_attention::Method;
use longspan_model::PassCost;

use crate::folder::log::Log;
use crate::folder::{NllFiles, Record};
use crate::memory::Memory;
use crate::session::{Identity, LanguageModel, Session};

/// Progress is counted in units of 2^20 operations, so that sums over a sweep fit.
const SHIFT: u32 = 20;

/// Sequences that go through the model once, under one method at one length.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Index into the config's methods.
    pub method: usize,
    /// Tokens of a sequence.
    pub length: usize,
    /// Most sequences that it feeds.
    pub sequences: usize,
    /// Indices of the cells that it fills.
    pub cells: Vec<usize>,
    /// Lengths of those cells, ascending.
    pub serves: Vec<usize>,
    /// Cost of one sequence.
    pub cost: PassCost,
}

/// A kind of measurement: its cells, the passes that fill them, and their records.
pub trait Measure {
    /// A line of its file of records.
    type Record: Record;

    /// Name in plans, refused passes and messages.
    const NAME: &'static str;

    /// The methods of the config.
    fn methods(&self) -> &[Method];

    /// All passes, in the order in which they run. Each cell belongs to one.
    fn passes(&self) -> &[Pass];

    /// The key of each cell.
    fn keys(&self, model: &Identity) -> Vec<String>;

    /// Sequences that `cells` of a pass need.
    fn sequences(&self, pass: &Pass, cells: &[usize]) -> usize;

    /// Runs a pass and records the cells that have no record yet.
    ///
    /// # Errors
    /// A pass that fails; a file that cannot be written.
    fn execute<M: LanguageModel>(
        &self,
        session: &mut Session<M>,
        todo: &Todo,
        output: &mut Output<Self::Record>,
    ) -> Result<()>;
}

/// A pass with cells that have no record yet.
pub struct Todo<'a> {
    /// Index of the pass.
    pub index: usize,
    /// The pass.
    pub pass: &'a Pass,
    /// Its cells without a record.
    pub missing: Vec<usize>,
    /// The keys of all cells of the measurement.
    pub keys: &'a [String],
}

/// The destination of a pass's results, and its progress bar.
pub struct Output<'a, R> {
    /// Per-token losses.
    pub nll: &'a NllFiles,
    log: &'a mut Log<R>,
    progress: &'a ProgressBar,
}

impl<R: Record> Output<'_, R> {
    /// Appends the record of a finished cell.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn record(&mut self, record: R) -> Result<()> {
        if self.progress.is_hidden() {
            log::info!("{}", record.one_line());
        }
        self.log.append(record)
    }

    /// Sets the message of the progress bar.
    pub fn show(&self, message: String) {
        self.progress.set_message(message);
    }

    /// Counts sequences of a pass as done.
    pub fn advance(&self, sequences: usize, cost: PassCost) {
        self.progress.inc(work(sequences, cost));
    }
}

fn work(sequences: usize, cost: PassCost) -> u64 {
    (sequences as u64 * cost.operations) >> SHIFT
}

/// Fills the cells that have no record yet; passes that do not fit in memory are refused and
/// remembered.
///
/// # Errors
/// A pass that fails; a record that cannot be written.
pub fn run<T: Measure, M: LanguageModel>(
    measure: &T,
    model: &M,
    (log, nll): (&mut Log<T::Record>, &NllFiles),
    memory: &mut Memory,
    progress: &ProgressBar,
) -> Result<()> {
    let keys = measure.keys(&model.identity());
    let name = |pass: &Pass| measure.methods()[pass.method].name.as_str();
    let todo: Vec<Todo> = (measure.passes().iter().enumerate())
        .map(|(index, pass)| {
            let cells = pass.cells.iter().copied();
            let missing = cells.filter(|&cell| !log.has(&keys[cell], name(pass)));
            Todo {
                index,
                pass,
                missing: missing.collect(),
                keys: &keys,
            }
        })
        .filter(|todo| !todo.missing.is_empty())
        .collect();
    let missing: usize = todo.iter().map(|todo| todo.missing.len()).sum();
    if missing < keys.len() {
        log::info!(
            "{} of {} {} cells have their records already",
            keys.len() - missing,
            keys.len(),
            T::NAME
        );
    }
    let sequences = |todo: &Todo| measure.sequences(todo.pass, &todo.missing);
    let total = todo
        .iter()
        .map(|todo| work(sequences(todo), todo.pass.cost));
    progress.reset();
    progress.set_length(total.sum());
    let mut output = Output { nll, log, progress };
    for todo in &todo {
        let (pass, name) = (todo.pass, name(todo.pass));
        progress.set_message(format!("{name}, {} tokens", pass.length));
        if !memory.fits(T::NAME, name, pass.length, pass.cost.bytes) {
            output.advance(sequences(todo), pass.cost);
            continue;
        }
        let mut session = Session::new(model, &measure.methods()[pass.method]);
        measure
            .execute(&mut session, todo, &mut output)
            .with_context(|| format!("method \"{name}\", {} tokens", pass.length))?;
    }
    progress.finish_and_clear();
    Ok(())
}
