//! x
use super::Plan;
/// x
#[must_use]
pub fn show(plan: &Plan) -> String {
    format!("{plan:?}")
}
