//! Functions of vectors as they are at a moment.

use promql_parser::parser::Expr;
use regex::Regex;

use super::{
    LabelSet, PromqlError,
    eval::{Eval, Grid, equalities, mapped},
    value::{Row, Value, merged, nameless},
};

/// Calls a function that takes no ranges.
pub(super) fn call(eval: &Eval<'_>, name: &str, args: &[&Expr], grid: Grid) -> Result<Value, PromqlError> {
    let unknown = || PromqlError::Function { name: name.to_owned() };
    let math: Option<fn(f64) -> f64> = match name {
        "abs" => Some(f64::abs),
        "ceil" => Some(f64::ceil),
        "floor" => Some(f64::floor),
        "exp" => Some(f64::exp),
        "ln" => Some(f64::ln),
        "log2" => Some(f64::log2),
        "log10" => Some(f64::log10),
        "sqrt" => Some(f64::sqrt),
        "sgn" => Some(|v| if v == 0.0 || v.is_nan() { v } else { v.signum() }),
        _ => None,
    };
    let rows = match (name, args) {
        ("time", []) => return Ok(Value::Scalar(grid.times().map(|ms| ms as f64 / 1000.0).collect())),
        ("scalar", [vector]) => return eval.vector(vector, grid).map(|rows| Value::Scalar(only(&rows, grid))),
        ("vector", [scalar]) => vec![Row {
            labels: LabelSet::new(),
            values: eval.scalar(scalar, grid)?.into_iter().map(Some).collect(),
        }],
        ("absent", [vector]) => vec![absent(vector, &eval.vector(vector, grid)?, grid)],
        ("sort", [vector]) => sorted(eval.vector(vector, grid)?, false),
        ("sort_desc", [vector]) => sorted(eval.vector(vector, grid)?, true),
        ("round", [vector]) => nameless(mapped(eval.vector(vector, grid)?, |v| (v + 0.5).floor()))?,
        ("round", [vector, to]) => {
            let to = eval.scalar(to, grid)?;
            // By the inverse, so that tenths come out as tenths.
            nameless(stepped(eval.vector(vector, grid)?, |step, v| {
                (v / to[step] + 0.5).floor() / (1.0 / to[step])
            }))?
        }
        ("clamp", [vector, least, most]) => {
            let (least, most) = (eval.scalar(least, grid)?, eval.scalar(most, grid)?);
            let mut rows = stepped(eval.vector(vector, grid)?, |step, v| {
                at_most(at_least(v, least[step]), most[step])
            });
            for row in &mut rows {
                for (step, value) in row.values.iter_mut().enumerate() {
                    *value = value.filter(|_| least[step] <= most[step]);
                }
            }
            nameless(rows)?
        }
        ("clamp_min", [vector, least]) => {
            let least = eval.scalar(least, grid)?;
            nameless(stepped(eval.vector(vector, grid)?, |step, v| at_least(v, least[step])))?
        }
        ("clamp_max", [vector, most]) => {
            let most = eval.scalar(most, grid)?;
            nameless(stepped(eval.vector(vector, grid)?, |step, v| at_most(v, most[step])))?
        }
        ("label_replace", [vector, to, with, from, pattern]) => {
            let rows = eval.vector(vector, grid)?;
            label_replace(rows, [text(to)?, text(with)?, text(from)?, text(pattern)?])?
        }
        ("label_join", [vector, to, between, from @ ..]) => {
            let rows = eval.vector(vector, grid)?;
            let from: Result<Vec<&str>, PromqlError> = from.iter().map(|arg| text(arg)).collect();
            label_join(rows, text(to)?, text(between)?, &from?)?
        }
        (_, [vector]) => nameless(mapped(eval.vector(vector, grid)?, math.ok_or_else(unknown)?))?,
        _ => return Err(unknown()),
    };
    Ok(Value::Vector(rows))
}

/// The value of the only series; not a number where there is none, or more than one.
fn only(rows: &[Row], grid: Grid) -> Vec<f64> {
    let values = (0..grid.steps).map(|step| {
        let mut there = rows.iter().filter_map(|row| row.values[step]);
        match (there.next(), there.next()) {
            (Some(value), None) => value,
            _ => f64::NAN,
        }
    });
    values.collect()
}

/// 1 where no series has a value, with the labels that a selector says they'd have.
pub(super) fn absent(expr: &Expr, rows: &[Row], grid: Grid) -> Row {
    let labels = match expr {
        Expr::VectorSelector(selector) => equalities(selector),
        Expr::MatrixSelector(selector) => equalities(&selector.vs),
        _ => LabelSet::new(),
    };
    let values = (0..grid.steps).map(|step| rows.iter().all(|row| row.values[step].is_none()).then_some(1.0));
    Row {
        values: values.collect(),
        labels,
    }
}

/// By the last value; what isn't a number comes last.
fn sorted(mut rows: Vec<Row>, down: bool) -> Vec<Row> {
    let last = |row: &Row| row.values.last().copied().flatten().unwrap_or(f64::NAN);
    rows.sort_by(|a, b| {
        let (a, b) = (last(a), last(b));
        let order = if down { b.partial_cmp(&a) } else { a.partial_cmp(&b) };
        order.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
    });
    rows
}

fn stepped(mut rows: Vec<Row>, map: impl Fn(usize, f64) -> f64) -> Vec<Row> {
    for row in &mut rows {
        for (step, value) in row.values.iter_mut().enumerate() {
            *value = value.map(|v| map(step, v));
        }
    }
    rows
}

/// The larger; not a number where either isn't.
fn at_least(value: f64, least: f64) -> f64 {
    if value.is_nan() || least.is_nan() {
        f64::NAN
    } else {
        value.max(least)
    }
}

/// The smaller; not a number where either isn't.
fn at_most(value: f64, most: f64) -> f64 {
    if value.is_nan() || most.is_nan() {
        f64::NAN
    } else {
        value.min(most)
    }
}

fn text(expr: &Expr) -> Result<&str, PromqlError> {
    match expr {
        Expr::StringLiteral(literal) => Ok(&literal.val),
        Expr::Paren(inner) => text(&inner.expr),
        other => Err(PromqlError::Invalid(format!("{other} isn't a string"))),
    }
}

fn is_label(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn put(labels: &mut LabelSet, label: &str, value: String) {
    if value.is_empty() {
        labels.remove(label);
    } else {
        labels.insert(label.to_owned(), value);
    }
}

fn label_replace(mut rows: Vec<Row>, [to, with, from, pattern]: [&str; 4]) -> Result<Vec<Row>, PromqlError> {
    let regex = Regex::new(&format!("^(?s:{pattern})$")).map_err(|error| PromqlError::Invalid(error.to_string()))?;
    if !is_label(to) {
        return Err(PromqlError::Invalid(format!("'{to}' can't be a label")));
    }
    for row in &mut rows {
        let value = row.labels.get(from).map_or("", String::as_str);
        let made = regex.captures(value).map(|found| {
            let mut made = String::new();
            found.expand(with, &mut made);
            made
        });
        if let Some(made) = made {
            put(&mut row.labels, to, made);
        }
    }
    merged(rows)
}

fn label_join(mut rows: Vec<Row>, to: &str, between: &str, from: &[&str]) -> Result<Vec<Row>, PromqlError> {
    if !is_label(to) {
        return Err(PromqlError::Invalid(format!("'{to}' can't be a label")));
    }
    for row in &mut rows {
        let values = from
            .iter()
            .map(|label| row.labels.get(*label).map_or("", String::as_str));
        let made = values.collect::<Vec<_>>().join(between);
        put(&mut row.labels, to, made);
    }
    merged(rows)
}
