//! Routes of the hosted service that a host of one's own does not have. They answer with a code that says so, instead of looking mistyped.

use schemars::JsonSchema;
use serde::Deserialize;
use tovuk_kernel::codes;
use tovuk_kernel::limits::API_PUBLIC_BODY_BYTES_MAX;
use tovuk_kernel::operation::{Access, Method, Operation, Request};

use super::Done;
use crate::control::handler::{Handler, Registered};
use crate::control::{Caller, Control, Refusal};

macro_rules! absent {
    ($($type:ident = $name:literal $method:ident $path:literal $access:ident { $($field:ident),* } $summary:literal;)*) => {
        $(
            #[doc = $summary]
            #[derive(Debug, Deserialize, JsonSchema)]
            pub struct $type { $(#[doc = "What it concerns."] pub $field: String,)* }

            impl Request for $type {
                const OPERATION: Operation = Operation::new($name, Method::$method, $path, $summary)
                    .described("Not on this host: answers 501 `not_on_this_host`.")
                    .access(Access::$access)
                    .body_bytes_max(API_PUBLIC_BODY_BYTES_MAX)
                    .errors(&[&codes::NOT_ON_THIS_HOST]);
                type Response = Done;
            }

            impl Handler for $type {
                async fn run(self, _control: Control, _caller: Caller) -> Result<Done, Refusal> {
                    Err(Refusal::new(&codes::NOT_ON_THIS_HOST, concat!($summary, ": this host does not offer that")))
                }
            }
        )*

        pub(super) fn all() -> Vec<Registered> {
            vec![$(Registered::of::<$type>()),*]
        }
    };
}

absent! {
    Checkout = "billing.checkout" Post "/v1/billing/checkout" Account {} "Begin a checkout";
    Portal = "billing.portal" Post "/v1/billing/portal" Account {} "Open the billing portal";
    Tickets = "support.list" Get "/v1/support/tickets" Account {} "List support tickets";
    CreateTicket = "support.create" Post "/v1/support/tickets" Account {} "Open a support ticket";
    ResolveTicket = "support.resolve" Post "/v1/support/tickets/{ticket}/resolve" Account { ticket } "Resolve a support ticket";
    Reports = "abuse.list" Get "/v1/abuse/reports" Account {} "List abuse reports";
    Report = "abuse.report" Post "/v1/abuse/reports" Public {} "Report abuse";
    Appeal = "abuse.appeal" Post "/v1/abuse/reports/{report}/appeal" Account { report } "Appeal against an abuse report";
    OperatorReports = "operator.abuse.list" Get "/v1/operator/abuse/reports" Operator {} "List all abuse reports";
    OperatorReport = "operator.abuse.act" Post "/v1/operator/abuse/reports/{report}/{action}" Operator { report, action } "Act on an abuse report";
}
