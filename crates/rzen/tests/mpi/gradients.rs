//! The gradients of a batch that 1, 2 and 4 ranks share are those of one process.

use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Bool, Device, FloatDType, Int, Tensor, TensorData};
use rzen::ranks::{Company, join};
use rzen_core::{Batch, Ranks, Solo, Targets};
use rzen_loss::{InfoNce, InfoNceConfig};
use rzen_model::{Encoded, EncoderInput, PositionMode, Qwen2Vl};
use rzen_train::{Checkpointing, Contrastive, Share, StepOptions, cached_gradients, shared_gradients};

use crate::case::{Case, collator};
use crate::launch::{mpirun, succeed};
use crate::reference::file;

type Model = Contrastive<Qwen2Vl, InfoNce>;

/// What trains: everything, or factors alone.
const KINDS: [&str; 2] = ["full", "lora"];

fn model(kind: &str) -> Model {
    let device = Device::flex();
    let folder = |name: &str| file(name).expect("the reference has a model and an adapter");
    let encoder = Qwen2Vl::load(&folder("model"), FloatDType::F32, &device).unwrap();
    let encoder = match kind {
        "full" => encoder.unfreeze_all(),
        _ => encoder.with_adapter(&folder("lora/run_a")).unwrap().train_adapter_only(),
    };
    let objective = InfoNceConfig {
        alpha: 9.0,
        delta: Some(0.95),
        tasks: vec!["one".into(), "two".into()],
        symmetric: true,
        ..InfoNceConfig::default()
    };
    Contrastive { encoder, objective: objective.init(&device).unwrap() }
}

/// Queries and candidates: texts, pictures and a page.
fn items() -> [Vec<Encoded>; 2] {
    let of = |names: &[&str]| -> Vec<Encoded> {
        let cases = names.iter().filter_map(|name| Case::open(name));
        cases.flat_map(|case| case.items().to_vec()).collect()
    };
    [of(&["train_queries", "text_en"]), of(&["train_docs", "image_one", "mixed_batch", "document_page"])]
}

/// Each query has a positive; other candidates are hard negatives of one query or of all, and one pair is exempt.
fn targets(queries: usize, candidates: usize) -> Targets {
    let device = Device::flex();
    let ints = |values: Vec<i64>| -> Tensor<1, Int> {
        let count = values.len();
        Tensor::from_data(TensorData::new(values, [count]), &device)
    };
    let owner = (0..candidates as i64).map(|row| match row - queries as i64 {
        hard if hard >= 0 && hard % 2 == 0 => hard % queries as i64,
        _ => -1,
    });
    let mut exempt = vec![false; queries * candidates];
    exempt[1] = true;
    Targets {
        positive: ints((0..queries as i64).collect()),
        task: ints((0..queries as i64).map(|row| row % 2).collect()),
        owner: Some(ints(owner.collect())),
        exempt: Some(Tensor::<2, Bool>::from_data(TensorData::new(exempt, [queries, candidates]), &device)),
    }
}

/// Loss and gradients of this rank's part of the batch, or of the whole where there is one rank.
fn found(kind: &str, ranks: &dyn Ranks) -> Vec<f32> {
    let model = model(kind);
    let [queries, candidates] = items();
    // Uneven: rank 0 has the most.
    let deal = |rows: usize| (0..rows).map(|row| row * row % 7 % ranks.size()).collect();
    let share = Share { queries: deal(queries.len()), candidates: deal(candidates.len()) };
    let collator = collator(&model.encoder, PositionMode::Sequential);
    let micro_batches = |items: &[Encoded], owners: &[usize]| -> Vec<EncoderInput> {
        let own: Vec<&Encoded> = items
            .iter()
            .zip(owners)
            .filter(|(_, owner)| **owner == ranks.rank())
            .map(|(item, _)| item)
            .collect();
        own.chunks(3).map(|items| collator.collate(items)).collect()
    };
    let batch = Batch {
        queries: micro_batches(&queries, &share.queries),
        candidates: micro_batches(&candidates, &share.candidates),
        targets: targets(queries.len(), candidates.len()),
    };
    let options = StepOptions { checkpointing: Checkpointing::Blocks, ..StepOptions::default() };
    let (stats, gradients) = match ranks.size() {
        1 => cached_gradients(&model, &batch, options),
        _ => shared_gradients(&model, &batch, &share, ranks, options),
    };
    let mut values = Values { gradients: &gradients, found: vec![stats.loss.into_scalar::<f32>()] };
    model.visit(&mut values);
    values.found
}

struct Values<'a> {
    gradients: &'a GradientsParams,
    found: Vec<f32>,
}

impl ModuleVisitor for Values<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.found.extend(gradient.into_data().try_to_vec::<f32>().unwrap());
        }
    }
}

/// Where the ranks of [`a_rank`] leave what they have found.
const RESULTS: &str = "RZEN_TEST_RESULTS";

fn result_file(folder: &Path, kind: &str, rank: usize) -> PathBuf {
    folder.join(format!("{kind}.{rank}"))
}

/// What `mpirun` starts; by itself it has nothing to do.
#[test]
fn a_rank() {
    let Some(folder) = std::env::var_os(RESULTS) else { return };
    let ranks = join(Company::Mpi).unwrap();
    for kind in KINDS {
        let bytes: Vec<u8> = found(kind, &*ranks).iter().flat_map(|x| x.to_le_bytes()).collect();
        std::fs::write(result_file(Path::new(&folder), kind, ranks.rank()), bytes).unwrap();
    }
}

#[test]
fn golden_gradients_are_the_same_on_1_2_and_4_ranks() {
    let expected = KINDS.map(|kind| found(kind, &Solo));
    for size in [1, 2, 4] {
        let folder = tempfile::tempdir().unwrap();
        let Some(mut command) = mpirun(size, folder.path()) else { return };
        let this = std::env::current_exe().unwrap();
        succeed(command.env(RESULTS, folder.path()).arg(this).args(["--exact", "gradients::a_rank"]));
        for (kind, expected) in KINDS.iter().zip(&expected) {
            let bytes = |rank| std::fs::read(result_file(folder.path(), kind, rank)).unwrap();
            let first = bytes(0);
            assert!(
                (1..size).all(|rank| bytes(rank) == first),
                "{size} ranks, {kind}: the same bits everywhere"
            );
            let found: Vec<f32> =
                first.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            assert_eq!(found.len(), expected.len());
            let largest = expected[1..].iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let pairs = found[1..].iter().zip(&expected[1..]);
            let off = pairs.fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
            println!("{size} ranks, {kind}: {} gradients, off by {off:e} of {largest:e}", found.len() - 1);
            assert!((found[0] - expected[0]).abs() <= 1e-5 * expected[0].abs(), "{size} ranks, {kind}");
            assert!(largest > 1e-3 && off <= 1e-5 * largest, "{size} ranks, {kind}: {off:e} of {largest:e}");
        }
    }
}
