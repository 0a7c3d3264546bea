//! Operators between two values.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use promql_parser::parser::token::{
    T_ADD, T_ATAN2, T_DIV, T_EQLC, T_GTE, T_GTR, T_LAND, T_LOR, T_LSS, T_LTE, T_LUNLESS, T_MOD, T_MUL, T_NEQ, T_POW,
    T_SUB, TokenType,
};
use promql_parser::parser::{BinModifier, BinaryExpr, LabelModifier, VectorMatchCardinality};

use super::PromqlError;
use super::eval::{Element, Val, nameless, without_name};
use crate::metrics::{Labels, NAME_LABEL};

/// Refuses what is not supported.
pub(super) fn check(expr: &BinaryExpr) -> Result<(), PromqlError> {
    let fills = |modifier: &BinModifier| modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some();
    if expr.modifier.as_ref().is_some_and(fills) {
        return Err(PromqlError::Unsupported("the fill modifier".to_owned()));
    }
    match expr.op.id() {
        T_ADD | T_SUB | T_MUL | T_DIV | T_MOD | T_POW | T_ATAN2 | T_EQLC | T_NEQ | T_GTR | T_GTE | T_LSS | T_LTE
        | T_LAND | T_LOR | T_LUNLESS => Ok(()),
        _ => Err(PromqlError::Unsupported(format!("the operator {}", expr.op))),
    }
}

/// The number, or for a comparison whether it holds.
enum Outcome {
    Number(f64),
    Holds(bool),
}

fn apply(op: TokenType, a: f64, b: f64) -> Outcome {
    #[expect(clippy::float_cmp, reason = "PromQL compares exactly")]
    match op.id() {
        T_ADD => Outcome::Number(a + b),
        T_SUB => Outcome::Number(a - b),
        T_MUL => Outcome::Number(a * b),
        T_DIV => Outcome::Number(a / b),
        T_MOD => Outcome::Number(a % b),
        T_POW => Outcome::Number(a.powf(b)),
        T_ATAN2 => Outcome::Number(a.atan2(b)),
        T_EQLC => Outcome::Holds(a == b),
        T_NEQ => Outcome::Holds(a != b),
        T_GTR => Outcome::Holds(a > b),
        T_GTE => Outcome::Holds(a >= b),
        T_LSS => Outcome::Holds(a < b),
        _ => Outcome::Holds(a <= b),
    }
}

pub(super) fn binary(expr: &BinaryExpr, left: Val, right: Val) -> Result<Val, PromqlError> {
    let (op, modifier) = (expr.op, expr.modifier.as_ref());
    let as_bool = modifier.is_some_and(|modifier| modifier.return_bool);
    match (left, right) {
        (Val::Scalar(a), Val::Scalar(b)) => Ok(Val::Scalar(match apply(op, a, b) {
            Outcome::Number(value) => value,
            Outcome::Holds(holds) => f64::from(u8::from(holds)),
        })),
        (Val::Vector(elements), Val::Scalar(b)) => {
            let each = |element: Element| with_number(op, as_bool, element.value, b, element);
            Ok(Val::Vector(elements.into_iter().filter_map(each).collect()))
        }
        (Val::Scalar(a), Val::Vector(elements)) => {
            let each = |element: Element| with_number(op, as_bool, a, element.value, element);
            Ok(Val::Vector(elements.into_iter().filter_map(each).collect()))
        }
        (Val::Vector(left), Val::Vector(right)) if op.is_set_operator() => {
            Ok(Val::Vector(of_sets(op, modifier, left, right)))
        }
        (Val::Vector(left), Val::Vector(right)) => matched(op, modifier, left, right).map(Val::Vector),
        _ => Err(PromqlError::Evaluation(format!("{op} takes no texts"))),
    }
}

/// An element against a number: filtered, or changed and nameless.
fn with_number(op: TokenType, as_bool: bool, a: f64, b: f64, element: Element) -> Option<Element> {
    let value = match apply(op, a, b) {
        Outcome::Number(value) => value,
        Outcome::Holds(holds) if as_bool => f64::from(u8::from(holds)),
        Outcome::Holds(holds) => return holds.then_some(element),
    };
    let labels = without_name(&element.labels);
    Some(Element { labels, value })
}

/// The labels by which elements are matched.
fn signature(labels: &Labels, matching: Option<&LabelModifier>) -> Labels {
    match matching {
        Some(LabelModifier::Include(on)) => Labels {
            name: if on.labels.iter().any(|label| label == NAME_LABEL) {
                labels.name.clone()
            } else {
                String::new()
            },
            labels: labels
                .labels
                .iter()
                .filter(|(label, _)| on.labels.contains(label))
                .cloned()
                .collect(),
        },
        Some(LabelModifier::Exclude(ignoring)) => {
            let kept = |(label, _): &&(String, String)| !ignoring.labels.contains(label);
            nameless(labels.labels.iter().filter(kept).cloned().collect())
        }
        None => nameless(labels.labels.clone()),
    }
}

fn of_sets(op: TokenType, modifier: Option<&BinModifier>, left: Vec<Element>, right: Vec<Element>) -> Vec<Element> {
    let matching = modifier.and_then(|modifier| modifier.matching.as_ref());
    let signatures = |elements: &[Element]| -> HashSet<Labels> {
        elements
            .iter()
            .map(|element| signature(&element.labels, matching))
            .collect()
    };
    if op.id() == T_LOR {
        let known = signatures(&left);
        let new = right
            .into_iter()
            .filter(|element| !known.contains(&signature(&element.labels, matching)));
        return left.into_iter().chain(new).collect();
    }
    let known = signatures(&right);
    let wanted = op.id() == T_LAND;
    let keep = |element: &Element| known.contains(&signature(&element.labels, matching)) == wanted;
    left.into_iter().filter(keep).collect()
}

fn matched(
    op: TokenType,
    modifier: Option<&BinModifier>,
    left: Vec<Element>,
    right: Vec<Element>,
) -> Result<Vec<Element>, PromqlError> {
    let matching = modifier.and_then(|modifier| modifier.matching.as_ref());
    let as_bool = modifier.is_some_and(|modifier| modifier.return_bool);
    let one_to_one = VectorMatchCardinality::OneToOne;
    let card = modifier.map_or(&one_to_one, |modifier| &modifier.card);
    // The side of which each group has one element.
    let swapped = matches!(card, VectorMatchCardinality::OneToMany(_));
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let mut ones: HashMap<Labels, Element> = HashMap::with_capacity(one.len());
    for element in one {
        let key = signature(&element.labels, matching);
        if ones.insert(key, element).is_some() {
            return Err(PromqlError::Evaluation(format!(
                "{op} meets several series with the same labels on its {} side",
                if swapped { "left" } else { "right" }
            )));
        }
    }
    let mut seen: HashSet<Labels> = HashSet::new();
    let mut out = Vec::new();
    for element in many {
        let key = signature(&element.labels, matching);
        let Some(other) = ones.get(&key) else {
            continue;
        };
        let (a, b) = if swapped {
            (other.value, element.value)
        } else {
            (element.value, other.value)
        };
        let value = match apply(op, a, b) {
            Outcome::Number(value) => value,
            Outcome::Holds(holds) if as_bool => f64::from(u8::from(holds)),
            Outcome::Holds(true) => a,
            Outcome::Holds(false) => continue,
        };
        let is_filter = op.is_comparison_operator() && !as_bool;
        let labels = result_labels(&element.labels, &other.labels, matching, card, is_filter);
        let distinct = if matches!(card, VectorMatchCardinality::OneToOne) {
            key
        } else {
            labels.clone()
        };
        if !seen.insert(distinct) {
            return Err(PromqlError::Evaluation(format!(
                "{op} matches several series to one: say group_left or group_right, or name more labels"
            )));
        }
        let labels = Arc::new(labels);
        out.push(Element { labels, value });
    }
    Ok(out)
}

fn result_labels(
    many: &Labels,
    one: &Labels,
    matching: Option<&LabelModifier>,
    card: &VectorMatchCardinality,
    is_filter: bool,
) -> Labels {
    let mut labels = many.clone();
    if !is_filter {
        labels.name.clear();
    }
    match card {
        VectorMatchCardinality::ManyToOne(taken) | VectorMatchCardinality::OneToMany(taken) => {
            for label in &taken.labels {
                labels.labels.retain(|(known, _)| known != label);
                if let Some(value) = one.get(label) {
                    labels.labels.push((label.clone(), value.to_owned()));
                }
            }
            labels.labels.sort_unstable();
        }
        VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => match matching {
            Some(LabelModifier::Include(on)) => {
                if !on.labels.iter().any(|label| label == NAME_LABEL) {
                    labels.name.clear();
                }
                labels.labels.retain(|(label, _)| on.labels.contains(label));
            }
            Some(LabelModifier::Exclude(ignoring)) => {
                labels.labels.retain(|(label, _)| !ignoring.labels.contains(label))
            }
            None => {}
        },
    }
    labels
}
