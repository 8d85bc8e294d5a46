//! The means as bars.

use super::html::{escape, score};

/// A bar for each model with a mark at chance; the longest fills most of the width.
pub(super) fn render(columns: &[String], means: &[f64], chance: Option<f64>) -> String {
    let longest = means.iter().copied().filter(|mean| mean.is_finite()).chain(chance).fold(0.0, f64::max);
    // A round end of the scale at or above the longest bar.
    let end = [0.05, 0.1, 0.2, 0.25, 0.5, 0.75].into_iter().find(|end| *end >= longest).unwrap_or(1.0);
    let share = |value: f64| (value / end * 100.0).clamp(0.0, 100.0);
    let mark = chance.map_or(String::new(), |chance| {
        format!("<span class=\"mark\" style=\"left:{:.2}%\"></span>", share(chance))
    });
    let last = columns.len() - 1;
    let rows = columns.iter().zip(means).enumerate().map(|(at, (name, mean))| {
        let width = if mean.is_finite() { share(*mean) } else { 0.0 };
        let class = if at == last { "bar last" } else { "bar" };
        format!(
            "<div class=\"{class}\"><span class=\"name\">{}</span><span class=\"track\"><span class=\"fill\" \
             style=\"width:{width:.2}%\"></span>{mark}</span><span class=\"value\">{}</span></div>\n",
            escape(name),
            score(*mean)
        )
    });
    let caption = match chance {
        Some(chance) => {
            format!("Mean over all tasks; the bars end at {end}, the line marks chance ({}).", score(chance))
        }
        None => format!("Mean over all tasks; the bars end at {end}."),
    };
    format!(
        "<figure class=\"bars\">\n{}<figcaption>{caption}</figcaption>\n</figure>\n",
        rows.collect::<String>()
    )
}
