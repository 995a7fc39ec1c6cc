//! Each adapter's product is a term of a base product: none is recorded alone.

use crate::fixtures::spec;
use halfbyte_core::dtype::DType;
use halfbyte_core::model::record;
use halfbyte_core::op::{Form, Gemm, Op, Phase};

#[test]
fn all_adapter_products_are_terms_of_a_base_product() {
    for (moe, checkpointing) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut spec = spec(moe, DType::Bf16, checkpointing);
        spec.dropout = 0.0;
        spec.adapters.values_mut().for_each(|a| a.r = 8);
        let (layers, chunks) = (spec.config.layers, spec.tokens.div_ceil(spec.loss.chunk));
        // q|k|v, o, gate|up, down, and Mixtral's router, which has an adapter here.
        let of_block = if moe { 5 } else { 4 };
        let program = record(spec).expect("recordable").program;
        let products = |form: Form, with_term: bool| {
            let wanted = |op: &&Op| matches!(op, Op::Gemm(g) if g.form == form && g.term.is_some() == with_term);
            program.ops(Phase::Micro).iter().filter(wanted).count()
        };
        let forward = of_block * layers + chunks;
        // Recomputed is all but the last product of a block, whose result nobody reads. (Mixtral's is read: by the gradient of
        // the routing weights.)
        let again = if checkpointing { (of_block - usize::from(!moe)) * layers } else { 0 };
        let case = format!("moe {moe}, checkpointing {checkpointing}");
        assert_eq!(products(Form::Nt, true), forward + again, "{case}");
        // The first block's q|k|v has no gradient to pass on: below it nothing is trained.
        assert_eq!(products(Form::Nn, true), forward - 1, "{case}");
        // x·Aᵀ and dy·B are the only other products with a weight: one for each base product, the last one of a block included,
        // because dB reads t.
        let small = forward + if checkpointing { of_block * layers } else { 0 };
        // The A's of experts are not stacked: w1 and w3 have one each, and one of the two shares of dx stands alone.
        let apart = if moe { layers } else { 0 };
        let small = small + apart * if checkpointing { 2 } else { 1 };
        assert_eq!((products(Form::Nt, false), products(Form::Nn, false)), (small, forward + apart), "{case}");
        // A bias is the `plus` of a base product, too.
        let alone = |op: &Op| matches!(op, Op::Gemm(Gemm { form: Form::Nt, plus: Some(plus), out, .. }) if plus == out);
        assert!(!program.ops(Phase::Micro).iter().any(alone), "{case}");
    }
}
