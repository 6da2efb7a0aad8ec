"""The stock classes of the family, by the model type that a checkpoint's `config.json` names."""

from transformers import Idefics3ForConditionalGeneration, SmolVLMForConditionalGeneration

StockModel = Idefics3ForConditionalGeneration | SmolVLMForConditionalGeneration
STOCK_CLASSES = {
    "smolvlm": SmolVLMForConditionalGeneration,
    "idefics3": Idefics3ForConditionalGeneration,
}
