//! Runs single ops on memory that the test lays out: every buffer has a place of its own, and holds what the test puts there.

use halfbyte_core::device::Device;
use halfbyte_core::device::cpu::{Cpu, CpuOptions};
use halfbyte_core::op::{Access, Buf, Op, Phase, Place, Program, Purpose, View};
use halfbyte_core::plan::{Plan, plan};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

/// Contents of every buffer of a program, at capacity.
pub type State = Vec<Vec<u8>>;

/// A program of which ops are run one at a time.
pub struct Alone {
    /// Without ops; every buffer resident.
    program: Program,
    plan: Plan,
    options: CpuOptions,
}

impl Alone {
    pub fn new(program: &Program, options: CpuOptions) -> Self {
        let mut program = Program { phases: Vec::new(), constants: Vec::new(), ..program.clone() };
        for info in &mut program.bufs {
            if info.place != Place::Host {
                info.place = Place::Resident(Purpose::Exchange);
            }
        }
        let plan = plan(&program);
        Self { program, plan, options }
    }

    /// Every buffer filled with `byte`.
    pub fn filled(&self, byte: u8) -> State {
        self.program.all().map(|b| vec![byte; self.program.bytes(b)]).collect()
    }

    /// Memory after `op`, with `live` tokens, has met the memory `before`; an error if it panicked. `moved`: buffers that
    /// lie where another buffer lies (in `before` and in the result, the second of the two counts).
    pub fn run(&self, op: &Op, live: usize, before: &State, moved: &[(Buf, Buf)]) -> Result<State, String> {
        let mut plan = self.plan.clone();
        for &(buf, onto) in moved {
            plan.address[buf.0 as usize] = plan.address(onto);
        }
        let program = Program { phases: vec![(Phase::Micro, vec![op.clone()])], ..self.program.clone() };
        let mut device = Cpu::new(self.options);
        device.allocate(Arc::new(program), Arc::new(plan)).expect("allocated");
        for buf in self.program.all().filter(|b| moved.iter().all(|(from, _)| from != b)) {
            device.write(buf, 0, &before[buf.0 as usize]).expect("written");
        }
        let run = || quiet().install(|| device.run(Phase::Micro, live));
        catch_unwind(AssertUnwindSafe(run)).map_err(|_| "panics".to_string())?.map_err(|e| e.to_string())?;
        let mut after = self.filled(0);
        for buf in self.program.all() {
            device.read(buf, 0, &mut after[buf.0 as usize]).expect("read");
        }
        Ok(after)
    }

    /// The access audit. Runs `op` on memory that holds NaN everywhere but in what is `declared` as read, and demands:
    /// declared writes come out as in `after`, where everything was there; nothing else changes. `before` and `after`
    /// are the op's true input and result; what it writes must have held something else than NaN before.
    pub fn audit(
        &self,
        op: &Op,
        declared: &[(View, Access)],
        live: usize,
        before: &State,
        after: &State,
    ) -> Result<(), String> {
        let regions = self.regions(declared, live);
        let mut only = self.filled(0xFF);
        for (buf, mask) in &regions.reads {
            let i = buf.0 as usize;
            (0..mask.len()).filter(|&at| mask[at]).for_each(|at| only[i][at] = before[i][at]);
        }
        let found = self.run(op, live, &only, &[])?;
        for buf in self.program.all() {
            let i = buf.0 as usize;
            let written = regions.writes.get(&buf);
            for at in 0..found[i].len() {
                let here = written.is_some_and(|w| w[at]);
                let name = &self.program.bufs[i].name;
                if here && found[i][at] != after[i][at] {
                    return Err(format!("byte {at} of {name} depends on more than is declared, or was not written"));
                }
                if !here && (found[i][at] != only[i][at] || after[i][at] != before[i][at]) {
                    return Err(format!("byte {at} of {name} changed, but is not declared as written"));
                }
            }
        }
        Ok(())
    }

    /// The bytes that a list of accesses reads from outside of it and those that it writes. (A later part of a group
    /// may read what an earlier part wrote.)
    fn regions(&self, accesses: &[(View, Access)], live: usize) -> Regions {
        let mut regions = Regions::default();
        for (view, access) in accesses {
            let size = self.program.info(view.buf).dtype.bytes();
            let new = || vec![false; self.program.bytes(view.buf)];
            let reads = regions.reads.entry(view.buf).or_insert_with(new);
            let writes = regions.writes.entry(view.buf).or_insert_with(new);
            for row in 0..view.rows.count(live) {
                let first = (view.offset + row * view.ld) * size;
                for at in first..first + view.cols * size {
                    reads[at] |= *access != Access::Write && !writes[at];
                    writes[at] |= *access != Access::Read;
                }
            }
        }
        regions
    }

    /// Whether the bytes that `accesses` write are the same in both.
    pub fn same_writes(&self, accesses: &[(View, Access)], live: usize, a: &State, b: &State) -> bool {
        self.regions(accesses, live).writes.iter().all(|(buf, mask)| {
            let i = buf.0 as usize;
            (0..mask.len()).all(|at| !mask[at] || a[i][at] == b[i][at])
        })
    }
}

/// One thread whose panics print nothing: an op that finds poison where it expects an index panics, as it should.
fn quiet() -> &'static rayon::ThreadPool {
    const NAME: &str = "alone";
    static POOL: OnceLock<rayon::ThreadPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() != Some(NAME) {
                usual(panic);
            }
        }));
        rayon::ThreadPoolBuilder::new().num_threads(1).thread_name(|_| NAME.into()).build().expect("a pool")
    })
}

#[derive(Default)]
struct Regions {
    reads: HashMap<Buf, Vec<bool>>,
    writes: HashMap<Buf, Vec<bool>>,
}
