"""The classes of the family."""

from smolvlm.model.modeling_smolvlm import MODEL_CLASSES
from smolvlm.model.stock_classes import STOCK_CLASSES


def test_every_class_is_known_by_the_type_that_it_saves_and_has_a_subclass_for_packs() -> None:
    for model_type, stock in STOCK_CLASSES.items():
        assert stock.config_class.model_type == model_type
        assert issubclass(MODEL_CLASSES[model_type], stock)
        assert MODEL_CLASSES[model_type].__name__ == stock.__name__
    assert MODEL_CLASSES.keys() == STOCK_CLASSES.keys()
