//! The orders of pages by the names that scenarios and `--order` have for them.

use crate::error::{CliError, Result, did_you_mean};
use highwater_engine::Order;
use serde::{Deserialize, Serialize};

/// In which order pages are tried for reclaim.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderName {
    /// Linux's active and inactive list.
    #[default]
    TwoList,
    /// S3-FIFO.
    S3Fifo,
}

impl OrderName {
    /// All.
    pub const ALL: [OrderName; 2] = [OrderName::TwoList, OrderName::S3Fifo];

    /// The engine's.
    pub fn order(self) -> Order {
        match self {
            OrderName::TwoList => Order::TwoList,
            OrderName::S3Fifo => Order::S3Fifo,
        }
    }

    /// As in a scenario.
    pub fn name(self) -> &'static str {
        self.order().name()
    }

    /// An arm's label with the order's name, where it is not the default.
    pub fn label(self, arm: &str) -> String {
        if self == OrderName::default() {
            arm.to_string()
        } else {
            format!("{arm} {}", self.name())
        }
    }

    /// From the command line: `two-list,s3-fifo`.
    pub fn parse_list(list: &str) -> Result<Vec<OrderName>> {
        let names = OrderName::ALL.map(OrderName::name);
        let mut orders = Vec::new();
        for word in list.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let Some(order) = OrderName::ALL.into_iter().find(|o| o.name() == word) else {
                let hint = did_you_mean(word, names)
                    .map_or(String::new(), |w| format!("; did you mean {w}?"));
                return Err(CliError::usage(
                    format!("unknown order {word:?}{hint}"),
                    format!("--order with one or more of {}", names.join(",")),
                ));
            };
            if !orders.contains(&order) {
                orders.push(order);
            }
        }
        if orders.is_empty() {
            return Err(CliError::usage("--order names no order", "--order s3-fifo"));
        }
        Ok(orders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_a_list_without_doubles() {
        let parse = |list| OrderName::parse_list(list);
        assert_eq!(
            parse("s3-fifo, two-list,s3-fifo").unwrap(),
            [OrderName::S3Fifo, OrderName::TwoList]
        );
        let e = parse("s3fifo").unwrap_err();
        assert!(e.message.contains("did you mean s3-fifo?"), "{e}");
        assert!(parse(",").is_err());
    }

    #[test]
    fn scenarios_have_the_engine_s_names() {
        for order in OrderName::ALL {
            let json = serde_json::to_value(order).unwrap();
            assert_eq!(json.as_str(), Some(order.name()));
        }
    }
}
