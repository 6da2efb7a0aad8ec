"""Runs side by side as one page: what `compare_runs` found, with their loss curves over each
other."""

from smolvlm.pages.templating import page_text
from smolvlm.report.side_by_side import Comparison
from smolvlm.report.side_charts import side_held_out_chart, side_loss_chart


def side_page(comparison: Comparison) -> str:
    """Return the page."""
    sides = comparison.sides
    return page_text(
        "side_by_side.html",
        title=", ".join(comparison.names),
        comparison=comparison,
        has_before=any(row.before for row in comparison.scores),
        loss_chart=side_loss_chart(sides),
        held_out_chart=side_held_out_chart(sides),
    )
