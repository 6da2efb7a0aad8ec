"""Settings as other trainers name them -> what to write here instead.

The names are those of TRL, LLaMA-Factory, unsloth, axolotl and of scripts around transformers.
"""

from collections.abc import Mapping

_LENGTH = "set data.max_tokens_per_pack: a pack holds whole conversations, none is cut"
_BATCH = "one pack is one batch; set train.packs_per_step and data.max_tokens_per_pack"
_RATES = "set train.language_model_lr, train.connector_lr and train.vision_tower_lr"
_LORA = "write `adapters: {language: {type: lora, r: 8, alpha: 8}}`"
_BITS = "write `quantization: {bits: 4}` (or 8), with adapters"
_MIXTURE = "set data.mixture: a YAML file of sources, or the sources themselves"
_ROWS = "set `sampling_strategy: first:1000` on a source of the mixture"
_TEMPLATE = "leave it out: the checkpoint's own chat template is the prompt"
_PIXELS = "set data.longest_edge_px, or data.image_splitting: false"
_LEARNED = (
    "leave it out: the assistant's words alone are learned; data.supervise: text adds the user's"
)
_WORKERS = "leave it out: rows are measured on all cores, once, and kept"
_BIT_KIND = "write `quantization: {bits: 4, quant_type: nf4, double_quant: true}`"
_PACKED = "leave it out: rows are always packed"
_KIND = "write it in the adapter's entry: `adapters: {language: {type: dora, init: gaussian}}`"
_ATTENTION = "leave it out, or set model.attention: varlen for FlashAttention, on CUDA"
_LIGER = "set train.use_liger_kernel: the layers' kernels, on CUDA; the loss stays our own"

OTHER_TRAINERS: Mapping[str, str] = {
    **dict.fromkeys(("max_seq_length", "max_length", "cutoff_len", "seq_length"), _LENGTH),
    **dict.fromkeys(("max_seq_len", "sequence_len", "context_length"), _LENGTH),
    **dict.fromkeys(("micro_batch_size", "train_batch_size", "global_batch_size"), _BATCH),
    **dict.fromkeys(("lr", "vision_lr", "mm_projector_lr", "projector_lr"), _RATES),
    **dict.fromkeys(("lora", "use_lora", "lora_rank", "lora_r", "lora_alpha", "peft"), _LORA),
    **dict.fromkeys(("lora_dropout", "lora_target", "finetuning_type", "use_peft"), _LORA),
    **dict.fromkeys(("lora_target_modules", "target_modules", "peft_config", "adapter"), _LORA),
    **dict.fromkeys(("load_in_4bit", "load_in_8bit", "quantization_bit", "use_qlora"), _BITS),
    **dict.fromkeys(("bnb_4bit_quant_type", "quantization_config", "bits"), _BITS),
    **dict.fromkeys(("dataset", "datasets", "dataset_dir", "dataset_name", "data_path"), _MIXTURE),
    **dict.fromkeys(("train_file", "train_data", "dataset_path", "image_folder"), _MIXTURE),
    **dict.fromkeys(("val_size", "eval_dataset", "validation_file"), "set data.eval_mixture"),
    **dict.fromkeys(("max_samples", "max_train_samples", "num_samples", "limit"), _ROWS),
    **dict.fromkeys(("template", "chat_template", "conv_version", "prompt_template"), _TEMPLATE),
    **dict.fromkeys(("image_max_pixels", "image_resolution", "max_image_size"), _PIXELS),
    **dict.fromkeys(("max_pixels", "min_pixels", "image_size"), _PIXELS),
    **dict.fromkeys(("attn_implementation", "flash_attn", "attn"), _ATTENTION),
    **dict.fromkeys(("use_flash_attention_2", "flash_attention"), _ATTENTION),
    "model_init_kwargs": "set model.dtype, and model.attention: varlen for FlashAttention, on CUDA",
    **dict.fromkeys(("model_name_or_path", "base_model", "model_name"), "set model.path"),
    **dict.fromkeys(("epochs", "num_epochs"), "set train.num_train_epochs"),
    **dict.fromkeys(("packing", "sample_packing", "neat_packing"), _PACKED),
    **dict.fromkeys(("padding_free", "eval_packing", "group_by_modality_length"), _PACKED),
    **dict.fromkeys(("assistant_only_loss", "completion_only_loss", "train_on_prompt"), _LEARNED),
    **dict.fromkeys(("train_on_inputs", "mask_history"), _LEARNED),
    **dict.fromkeys(("dataset_num_proc", "preprocessing_num_workers", "overwrite_cache"), _WORKERS),
    **dict.fromkeys(("use_dora", "use_rslora", "init_lora_weights"), _KIND),
    **dict.fromkeys(("bnb_4bit_use_double_quant", "double_quantization"), _BIT_KIND),
    **dict.fromkeys(("train_dataset", "train_dataloader"), _MIXTURE),
    **dict.fromkeys(("processing_class", "data_collator", "formatting_func"), _TEMPLATE),
    **dict.fromkeys(("rank", "lora_target_module"), _LORA),
    **dict.fromkeys(("enable_liger_kernel", "use_liger", "liger_kernel"), _LIGER),
    "compute_metrics": "set eval.metric, or `metric` on a source of data.eval_mixture",
    "callbacks": "hand them to api.train from Python",
    "batch_size": f"{_BATCH}; eval.batch_size is that of evaluation",
    "streaming": "leave it out: rows stay on disk, and an epoch is planned ahead",
    "revision": "download that revision, and name its folder as model.path",
    "warmup_ratio": "set train.warmup_steps below 1, a share of all steps",
    "stage": "set train.method: sft, or dpo",
    "truncation_mode": "leave it out: a conversation is never cut",
    "pref_beta": "set train.beta",
    "pref_loss": "set train.loss_type",
    "pref_ftx": "set train.sft_weight",
    "rpo_alpha": "set train.sft_weight",
    "simpo_gamma": "set train.margin",
    "ref_model": "set train.reference_model",
    "precompute_ref_log_probs": "set train.reference: precomputed, which is the default",
    "bnb_4bit_compute_dtype": "set train.bf16, in which the products are computed",
    "modules_to_save": "write `adapters: {connector: full}`, which is saved with the adapter",
    "plot_loss": "leave it out: report.html shows the loss",
    "freeze_multi_modal_projector": "set train.connector_lr: 0",
    "freeze_vision_tower": "set train.vision_tower_lr: 0",
    "tune_vision_tower": "set train.vision_tower_lr above 0",
    "freeze_language_model": "set train.language_model_lr: 0",
}
"""Name, without its section -> the hint."""
