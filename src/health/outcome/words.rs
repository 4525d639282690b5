//! The words by which vendors say what went wrong: the codes, types and phrases of each outcome, as their documentation or their
//! servers' source gives them. A word is listed only if it can mean nothing else.
//!
//! - A *code* is compared with `error.code`, `error.type` and the other places where vendors put one; capitals do not matter.
//! - An *opening* is how a message begins, with any text in place of `…`. Outcomes that exclude a provider for everybody are found
//!   by openings only: what stands further within a message may be a client's own words, which many vendors repeat.
//! - A *phrase* stands anywhere in a message. It is used where the outcome changes nothing for other requests.
//!
//! Openings and phrases are written in small letters.

/// The account is empty, owes money, or has reached a limit that its owner set.
pub(super) const BILLING_CODES: &[&str] = &[
    // OpenAI's.
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
    "billing_not_active",
    // Several vendors' code for an empty account.
    "insufficient_balance",
    // Anthropic's: the first comes with a 402, the others with a 429.
    "billing_error",
    "contract_spend_limit_reached",
    "enforced_spend_limit_reached",
    // Alibaba's, Moonshot's, OpenRouter's, Google's and Volcengine's.
    "Arrearage",
    "exceeded_current_quota_error",
    "payment_required",
    "BILLING_DISABLED",
    "AccountOverdueError",
];
pub(super) const BILLING_OPENINGS: &[&str] = &[
    // Anthropic's.
    "your credit balance is too low",
    "you have reached your specified api usage limits",
    // Fireworks', with a 412.
    "account suspended",
    "account …is suspended",
    // xAI's, with a 403 or a 429.
    "your team …has either used all available credits or reached its monthly spending limit",
    "your newly created team…have any credits",
    // Gemini's, with a 429 and with a 400.
    "your prepayment credits are depleted",
    "gemini api free tier is not available in your country",
];

/// The provider has too much load.
pub(super) const OVERLOAD_CODES: &[&str] = &[
    // OpenAI's and Anthropic's.
    "server_is_overloaded",
    "slow_down",
    "overloaded",
    "overloaded_error",
    // Moonshot's, with a 429; llama.cpp's while it loads a model; OpenRouter's.
    "engine_overloaded",
    "engine_overloaded_error",
    "unavailable_error",
    "provider_overloaded",
];

/// The key has sent too many requests.
pub(super) const RATE_LIMIT_CODES: &[&str] = &[
    // OpenAI's and Google's (capitals do not matter), Anthropic's, Moonshot's.
    "rate_limit_exceeded",
    "rate_limit_error",
    "rate_limit_reached_error",
    // Alibaba's.
    "Throttling",
    "Throttling.RateQuota",
    "Throttling.BurstRate",
    "Throttling.AllocationQuota",
];

/// The conversation does not fit the model, or one request is larger than what the key may send in a minute.
pub(super) const TOO_LONG_CODES: &[&str] = &[
    // OpenAI's.
    "context_length_exceeded",
    "string_above_max_length",
    // Anthropic's and Groq's, with a 413.
    "request_too_large",
    // llama.cpp's.
    "exceed_context_size_error",
    // OpenRouter's.
    "token_limit_exceeded",
    "string_too_long",
    "payload_too_large",
    // GitHub Models', LiteLLM's and Alibaba's.
    "tokens_limit_reached",
    "ContextWindowExceededError",
    "BadRequest.TooLarge",
];
pub(super) const TOO_LONG_PHRASES: &[&str] = &[
    // DeepSeek's, vLLM's, OpenRouter's, Mistral's.
    "maximum context length",
    // Anthropic's.
    "prompt is too long",
    "exceed context limit",
    // OpenAI's, and SGLang's.
    "exceeds the context window",
    "longer than the model's context length",
    // llama.cpp's, LM Studio's, Ollama's.
    "exceeds the available context size",
    "greater than the context length",
    "input length exceeds the context length",
    // Gemini's, xAI's, Moonshot's.
    "exceeds the maximum number of tokens allowed",
    "maximum prompt length is",
    "exceeded model token limit",
    "input token length too long",
    // Groq's and Cerebras', Amazon's, MiniMax's, Cohere's, Alibaba's.
    "reduce the length of the messages",
    "input is too long for requested model",
    "context window exceeds limit",
    "too many tokens: ",
    "range of input length should be",
];
/// OpenAI's, with a 429, and Groq's, with a 413: the request alone is larger than what the key may send in a minute.
pub(super) const TOO_LARGE_OPENING: &str = "request too large for ";

/// A content filter or a moderation refused the request or the answer to it.
pub(super) const REFUSAL_CODES: &[&str] = &[
    // OpenAI's and Azure's.
    "content_filter",
    "content_policy_violation",
    "responsible_ai_policy_violation",
    "ResponsibleAIPolicyViolation",
    "invalid_prompt",
    "image_content_policy_violation",
    "moderation_blocked",
    "bio_policy",
    "cyber_policy",
    "misalignment_policy_violation",
    // Alibaba's.
    "data_inspection_failed",
    "DataInspectionFailed",
    // Gemini's reasons for a block.
    "PROHIBITED_CONTENT",
    "SAFETY",
    "IMAGE_SAFETY",
    "BLOCKLIST",
    "SPII",
    "RECITATION",
    "JAILBREAK",
    "MODEL_ARMOR",
    // OpenRouter's and Volcengine's.
    "refusal",
    "SensitiveContentDetected",
    "InputTextSensitiveContentDetected",
    "InputImageSensitiveContentDetected",
    "OutputTextSensitiveContentDetected",
];
pub(super) const REFUSAL_PHRASES: &[&str] = &[
    // DeepSeek's.
    "content exists risk",
    // xAI's.
    "content violates usage guidelines",
    "failed check: safety_check_type",
    // OpenRouter's.
    "your input was flagged",
    // Anthropic's, OpenAI's and Azure's.
    "output blocked by content filtering policy",
    "flagged as potentially violating our usage policy",
    "blocked by our safety system",
    "rejected as a result of our safety system",
    "content management policy",
    // Alibaba's and Moonshot's.
    "may contain inappropriate content",
    "rejected because it was considered high risk",
    // Gemini's.
    "prohibited_content",
];

/// The provider refuses the key or its account, or serves nobody where the gateway stands.
pub(super) const KEY_CODES: &[&str] = &[
    // OpenAI's.
    "invalid_api_key",
    "account_deactivated",
    "unsupported_country_region_territory",
    // Anthropic's; vLLM's and Volcengine's; OpenRouter's.
    "authentication_error",
    "AuthenticationError",
    "authentication",
    // Moonshot's, Alibaba's, Groq's.
    "invalid_authentication_error",
    "incorrect_api_key_error",
    "InvalidApiKey",
    "organization_restricted",
    // Google's: the status, and the reasons in `details`.
    "UNAUTHENTICATED",
    "API_KEY_INVALID",
    "API_KEY_SERVICE_BLOCKED",
    "CONSUMER_SUSPENDED",
    "CONSUMER_INVALID",
    "SERVICE_DISABLED",
];
pub(super) const KEY_OPENINGS: &[&str] = &[
    // Gemini's.
    "api key not valid",
    "api key not found",
    "api key expired",
    "your api key was reported as leaked",
    "user location is not supported",
    // xAI's and Anthropic's.
    "incorrect api key",
    "this organization has been disabled",
];

/// The provider does not have the model, or does not serve it to this account.
pub(super) const MODEL_CODES: &[&str] = &[
    // OpenAI's and Groq's, Groq's, Together's, Mistral's.
    "model_not_found",
    "model_decommissioned",
    "model_not_available",
    "invalid_model",
    // Azure's, GitHub Models' and Hugging Face's.
    "DeploymentNotFound",
    "unknown_model",
    "model_not_supported",
    // Alibaba's. The others mean that the account has not bought the model, or has used up what is free of it.
    "ModelNotFound",
    "Model.AccessDenied",
    "AccessDenied.Unpurchased",
    "AllocationQuota.FreeTierOnly",
    // Volcengine's.
    "ModelNotOpen",
    "InvalidEndpointOrModel.NotFound",
];
pub(super) const MODEL_OPENINGS: &[&str] = &[
    // DeepSeek's.
    "model not exist",
    // OpenAI's and vLLM's, xAI's.
    "the model `…` does not exist",
    "the model …does not exist or your team",
    // NVIDIA's.
    "the model '…' has reached its end of life",
    "function '…': not found for account",
    // Gemini's, Cohere's, Fireworks', Ollama's.
    "models/…is not found for api version",
    "model '…' was removed on",
    "model not found, inaccessible",
    "model '…' not found",
    "model \"…\" not found",
];

/// The request asks for a longer answer than this model gives, or has a history that another provider made. Somebody else may take it.
pub(super) const PARTICULAR_CODES: &[&str] = &[
    // OpenAI's, about thoughts that another account made.
    "invalid_encrypted_content",
    // Mistral's, about the ids of tool calls.
    "invalid_function_call",
];
pub(super) const PARTICULAR_PHRASES: &[&str] = &[
    // OpenAI's, and of those who follow it. Its codes are not enough: they come with other parameters, too.
    "max_tokens is too large",
    "max_completion_tokens is too large",
    "max_output_tokens is too large",
    "tokens': integer above maximum value",
    // DeepSeek's, Alibaba's, Anthropic's.
    "the valid range of max_tokens is",
    "range of max_tokens should be",
    "which is the maximum allowed number of output tokens",
    // Groq's and NVIDIA's, old and new; Scaleway's.
    "max_tokens` must be less than or equal to",
    "max_tokens must be less than or equal to",
    "max_completion_tokens` must be less than or equal to",
    "max_completion_tokens must be less than or equal to",
    "max_tokens for `",
    "max_completion_tokens is limited for this model",
    // Gemini's, Amazon's, Fireworks'.
    "has a maxoutputtokens value of",
    "maximum tokens you requested exceed",
    "requests with max_tokens >",
    // OpenAI's, Anthropic's, Gemini's, DeepSeek's and Mistral's, about the history.
    "encrypted content could not be decrypted or parsed",
    "invalid `signature` in `thinking` block",
    "missing a thought_signature",
    "in the thinking mode must be passed back to the api",
    "but must be a-z, a-z, 0-9, with a length of 9",
];
/// The parameters that limit an answer. An error that names one in its `param` is about that limit.
pub(super) const ANSWER_LIMITS: &[&str] = &["max_tokens", "max_completion_tokens", "max_output_tokens"];

/// The request is at fault, but the word does not say which other provider would find so, too. They matter only for an error inside
/// an answer, whose status says nothing.
pub(super) const REQUEST_CODES: &[&str] = &[
    // OpenAI's and Anthropic's, and what others wrote after them.
    "invalid_request_error",
    "invalid_request",
    "invalid_parameter_error",
    "unsupported_parameter",
    "unsupported_value",
    "invalid_value",
    "invalid_type",
    "missing_required_parameter",
    "image_parse_error",
    "invalid_image",
    "invalid_image_format",
    "invalid_image_mode",
    "invalid_image_url",
    "invalid_base64_image",
    "image_too_large",
    "image_too_small",
    "image_file_too_large",
    "image_file_not_found",
    "unsupported_image_media_type",
    "empty_image_file",
    "failed_to_download_image",
    // vLLM's and SGLang's, Alibaba's, Google's, OpenRouter's.
    "BadRequestError",
    "UnprocessableEntityError",
    "bad_request",
    "InvalidParameter",
    "INVALID_ARGUMENT",
    "unprocessable",
];

/// OpenAI's, in a 404 about an object that it stores. Other vendors write "Model with id '…' not found" about a model.
pub(super) const STORED_OBJECT_PHRASES: &[&str] =
    &["conversation with id '", "item with id '", "prompt with id '", "response with id '"];

/// The status that a type stands for, where the type comes without a status. Anthropic's, Moonshot's, vLLM's, OpenRouter's and
/// Google's.
pub(super) const STATUSES: &[(&str, u16)] = &[
    ("permission_error", 403),
    ("permission_denied_error", 403),
    ("permission_denied", 403),
    ("PermissionDeniedError", 403),
    ("not_found_error", 404),
    ("resource_not_found_error", 404),
    ("NotFoundError", 404),
    ("not_found", 404),
    ("precondition_failed", 412),
    ("RESOURCE_EXHAUSTED", 429),
    ("UNAVAILABLE", 503),
    ("provider_unavailable", 502),
];

/// Zhipu's codes, which are numbers, and the outcomes that they mean; `None` for any other.
pub(super) fn of_zhipu(code: &str) -> Option<super::Outcome> {
    use super::Outcome;
    Some(match code {
        // In arrears; a plan that has expired; a plan whose limit for the week or the month is reached.
        "1113" | "1309" | "1310" => Outcome::OutOfQuota,
        "1000" | "1001" | "1002" | "1003" | "1004" | "1110" | "1111" | "1112" | "1121" => Outcome::BadKey,
        "1211" => Outcome::NoSuchModel,
        "1301" => Outcome::Refused,
        "1302" | "1303" => Outcome::RateLimited,
        _ => return None,
    })
}

/// The code of the local backup listener in `envoy/`, which answers for a provider that has no healthy or resolvable host.
pub(super) const NO_HEALTHY_HOST: &str = "no_healthy_upstream";
