//! What things cost, and what was used, as text. Amounts of money come in millionths of a US dollar.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::generic::cell;
use super::{next_actions, one_line, pairs, table};

fn list<'a>(answer: &'a Value, pointer: &str) -> &'a [Value] {
    answer.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).map(cell).unwrap_or_default()
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn dollars(micros: u64) -> String {
    let (whole, parts) = (micros / 1_000_000, micros % 1_000_000);
    // Cents at least, and what is less where there is any.
    let parts = format!("{parts:06}");
    let cents = parts.trim_end_matches('0');
    format!("${whole}.{cents:0<2}")
}

/// Values of nested objects by their names, joined with dots.
fn flattened(map: &Map<String, Value>, path: &str, into: &mut BTreeMap<String, String>) {
    for (name, value) in map {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match value {
            Value::Object(inner) => flattened(inner, &path, into),
            value => {
                let micros = value.as_u64().filter(|_| name.contains("UsdMicros"));
                into.insert(path, micros.map_or_else(|| value.to_string(), dollars));
            }
        }
    }
}

/// What the plans have under this name, a row for each value and a column for each plan.
fn by_plan(plans: &[Value], name: &str) -> String {
    let of = |plan: &Value| {
        let mut values = BTreeMap::new();
        plan.get(name).and_then(Value::as_object).into_iter().for_each(|map| flattened(map, "", &mut values));
        values
    };
    let columns: Vec<_> = plans.iter().map(of).collect();
    let mut names: Vec<_> = columns.iter().flat_map(BTreeMap::keys).collect();
    names.sort_unstable();
    names.dedup();
    let row =
        |name: &String| std::iter::once(name.clone()).chain(columns.iter().map(|column| column.get(name).cloned().unwrap_or_default())).collect();
    let plan_names: Vec<_> = plans.iter().map(|plan| text(plan, "name")).collect();
    let header: Vec<_> = std::iter::once("name").chain(plan_names.iter().map(String::as_str)).collect();
    table(&header, names.into_iter().map(row))
}

/// The catalogue: what there is, how it is counted, what it costs and how much of it there may be.
pub fn pricing(answer: &Value) -> String {
    let products = list(answer, "/products");
    let plans = list(answer, "/plans");
    let mut out = "products:\n".to_owned();
    out += &table(&["name", "best for"], products.iter().map(|product| vec![text(product, "key"), text(product, "best_for")]));
    let meters = products.iter().flat_map(|product| list(product, "/meter_details"));
    out += "\nmeters, which can be capped with `tovuk limits set`:\n";
    out += &table(&["name", "unit", "charged"], meters.map(|meter| ["name", "unit", "charged"].map(|name| text(meter, name)).into()));
    out += "\nprices by plan:\n";
    out += &by_plan(plans, "pricing");
    out += "\nlimits by plan:\n";
    out += &by_plan(plans, "limits");
    out += "\nlimits that a project file may set, up to the ceiling that an operator allows:\n";
    let columns = ["name", "unit", "free", "pro", "ceiling"];
    out += &table(&columns, list(answer, "/worker_limits").iter().map(|limit| columns.map(|name| text(limit, name)).into()));
    out + &next_actions(answer)
}

/// What an account or one of its services has used. What was not used at all is left out.
pub fn usage(answer: &Value, service: Option<&str>) -> String {
    let meters = |period: &str| answer.pointer(&format!("/usage/meters/{period}")).and_then(Value::as_object);
    let used = |period: &str, name: &str| meters(period).and_then(|meters| meters.get(name)).and_then(Value::as_u64).unwrap_or_default();
    let names: Vec<_> = meters("month").into_iter().flat_map(Map::keys).filter(|name| used("month", name) > 0 || used("day", name) > 0).collect();
    let whose = service.map_or_else(|| "the account".to_owned(), one_line);
    let mut out = if names.is_empty() {
        format!("{whose} has used nothing this month\n")
    } else {
        let row = |name: &&String| vec![(*name).clone(), used("day", name).to_string(), used("month", name).to_string()];
        format!("used by {whose}:\n{}", table(&["meter", "today", "this month"], names.iter().map(row)))
    };
    let caps = list(answer, "/caps");
    if !caps.is_empty() {
        out += "\ncaps:\n";
        let columns = ["metric", "period", "service", "capValue", "used", "resetsAt"];
        out += &table(&columns, caps.iter().map(|cap| columns.map(|name| text(cap, name)).into()));
    }
    let Some(estimate) = answer.get("billingEstimate") else { return out };
    let row = |item: &Value| {
        let price = format!("{} per {}", dollars(number(item, "overageUsdMicros")), number(item, "per"));
        let figures = ["used", "included", "overage"].map(|name| number(item, name).to_string());
        std::iter::once(text(item, "meter")).chain(figures).chain([price, dollars(number(item, "amountUsdMicros"))]).collect()
    };
    let items = list(estimate, "/lineItems").iter().filter(|item| number(item, "used") > 0);
    let items = table(&["meter", "used", "included", "beyond", "price", "comes to"], items.map(row));
    if !names.is_empty() || service.is_some() {
        out += &format!("\nthe account's month so far:\n{items}");
    }
    let total = |name: &str| dollars(number(estimate, name));
    let totals = [
        ("plan", text(estimate, "plan")),
        ("subscription", total("subscriptionUsdMicrosPerMonth")),
        ("beyond what is included", total("currentMonthOverageUsdMicros")),
        ("month comes to", total("estimatedMonthlyTotalUsdMicros")),
    ];
    out += "\n";
    out + &pairs(&totals.map(|(name, value)| (name.to_owned(), one_line(&value))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const USED: [&str; 12] = [
        "used by shop:",
        "METER            TODAY  THIS MONTH",
        "worker_requests  2      31",
        "",
        "the account's month so far:",
        "METER            USED  INCLUDED  BEYOND  PRICE        COMES TO",
        "worker_requests  31    10        21      $0.30 per 5  $0.031",
        "",
        "plan                     pro",
        "subscription             $5.00",
        "beyond what is included  $0.031",
        "month comes to           $5.031",
    ];
    const PRICES: [&str; 20] = [
        "products:",
        "NAME    BEST FOR",
        "worker  HTTP APIs",
        "",
        "meters, which can be capped with `tovuk limits set`:",
        "NAME             UNIT     CHARGED",
        "worker_requests  request  One for each.",
        "",
        "prices by plan:",
        "NAME                                       FREE   PRO",
        "workers.includedRequestsPerMonth           7      7",
        "workers.requestOverageUsdMicrosPerMillion  $0.00  $0.30",
        "",
        "limits by plan:",
        "NAME      FREE  PRO",
        "projects  3     3",
        "",
        "limits that a project file may set, up to the ceiling that an operator allows:",
        "NAME    UNIT  FREE  PRO    CEILING",
        "cpu_ms  ms    50    30000  300000",
    ];

    #[test]
    fn money_has_cents_and_no_more_than_it_needs() {
        assert_eq!([0, 5_000_000, 93_000, 300_000, 1, 12_500].map(dollars), ["$0.00", "$5.00", "$0.093", "$0.30", "$0.000001", "$0.0125"]);
    }

    #[test]
    fn what_was_used_comes_first_and_what_was_not_is_left_out() {
        let item = |meter: &str, used: u64| json!({"meter": meter, "used": used, "included": 10, "overage": used.saturating_sub(10), "overageUsdMicros": 300_000, "per": 5, "amountUsdMicros": used * 1_000});
        let answer = json!({
            "usage": {"meters": {"day": {"kv_reads": 0, "worker_requests": 2}, "month": {"kv_reads": 0, "worker_requests": 31}}},
            "caps": [],
            "billingEstimate": {"plan": "pro", "subscriptionUsdMicrosPerMonth": 5_000_000, "currentMonthOverageUsdMicros": 31_000, "estimatedMonthlyTotalUsdMicros": 5_031_000,
                "lineItems": [item("worker_requests", 31), item("kv_reads", 0)]},
        });
        assert_eq!(usage(&answer, Some("shop")).lines().collect::<Vec<_>>(), USED);
        assert_eq!(usage(&json!({"usage": {"meters": {}}}), None), "the account has used nothing this month\n");
    }

    #[test]
    fn prices_stand_side_by_side() {
        let plan = |name: &str, price: u64| json!({"name": name, "limits": {"projects": 3}, "pricing": {"workers": {"includedRequestsPerMonth": 7, "requestOverageUsdMicrosPerMillion": price}}});
        let answer = json!({
            "plans": [plan("free", 0), plan("pro", 300_000)],
            "products": [{"key": "worker", "best_for": "HTTP APIs", "meter_details": [{"name": "worker_requests", "unit": "request", "charged": "One for each."}]}],
            "worker_limits": [{"name": "cpu_ms", "unit": "ms", "free": 50, "pro": 30_000, "ceiling": 300_000, "description": "CPU time"}],
        });
        assert_eq!(pricing(&answer).lines().collect::<Vec<_>>(), PRICES);
    }
}
