//! Every base product takes the adapters' products of its output into its group; none is left alone.

use crate::fixtures::spec;
use halfbyte_core::dtype::DType;
use halfbyte_core::model::record;
use halfbyte_core::op::{FusedKind, Op, Phase, Program};

fn groups(program: &Program, kind: FusedKind) -> usize {
    let fused = |op: &&Op| matches!(op, Op::Fused { kind: k, .. } if *k == kind);
    program.ops(Phase::Micro).iter().filter(fused).count()
}

#[test]
fn all_adapter_products_join_a_base_product() {
    for (moe, checkpointing) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut spec = spec(moe, DType::Bf16, checkpointing);
        spec.dropout = 0.0;
        let (layers, chunks) = (spec.config.layers, spec.tokens.div_ceil(spec.loss.chunk));
        // q|k|v, o, gate|up, down, and Mixtral's router, which has an adapter here.
        let of_block = if moe { 5 } else { 4 };
        let model = record(spec).expect("recordable");
        let forward = of_block * layers + chunks;
        // Recomputed is all but the last product of a block, whose result nobody reads. (Mixtral's is read: by the gradient of
        // the routing weights.)
        let again = if checkpointing { (of_block - usize::from(!moe)) * layers } else { 0 };
        assert_eq!(
            groups(&model.program, FusedKind::LoraUp),
            forward + again,
            "moe {moe}, checkpointing {checkpointing}"
        );
        // The first block's q|k|v has no gradient to pass on: below it nothing is trained.
        assert_eq!(
            groups(&model.program, FusedKind::LoraDown),
            forward - 1,
            "moe {moe}, checkpointing {checkpointing}"
        );
        assert_eq!(model.fusion.missed, 0, "moe {moe}, checkpointing {checkpointing}");
    }
}
