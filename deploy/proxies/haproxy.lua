-- Asks Tallystick whether a request may pass: sets the X-Token headers, or answers as the edge did.
local edge = "http://127.0.0.1:3000/auth?scope=orders"
local timeout_ms = 500 -- for each of the four attempts that HAProxy makes
local identity = { "x-token-id", "x-token-account", "x-token-scopes" }
local passed_on = {
    "content-type", "cache-control", "www-authenticate", "retry-after", "ratelimit", "ratelimit-policy", "x-request-id",
}
local unavailable = {
    status = 503,
    headers = { ["content-type"] = { [0] = "application/problem+json" }, ["retry-after"] = { [0] = "1" } },
    body = '{"type":"about:blank","title":"Service unavailable","status":503,"code":"unavailable"}',
}

local function values(headers, name)
    local list = {}
    for index = 0, #(headers[name] or {}) do
        if headers[name] and headers[name][index] then list[#list + 1] = headers[name][index] end
    end
    return list
end

-- Whether a part of a query string is a token, however its name is written: `access%5Ftoken=`.
local function is_token(part)
    local name = part:match("^[^=]*"):gsub("+", " "):gsub("%%(%x%x)", function(code)
        return string.char(tonumber(code, 16))
    end)
    return name == "access_token"
end

-- A request target without the token of a client that cannot set headers, and whether it had one.
local function without_token(target)
    local path, query = target:match("^([^?]*)%?(.*)$")
    local rest, found = {}, false
    for part in ((query or "") .. "&"):gmatch("([^&]*)&") do
        if is_token(part) then found = true else rest[#rest + 1] = part end
    end
    if not found then return target, false end
    return #rest > 0 and path .. "?" .. table.concat(rest, "&") or path, true
end

core.register_action("tallystick", { "http-req" }, function(txn)
    local sent = txn.http:req_get_headers()
    local url, is_head = txn.f:url(), txn.f:method() == "HEAD"
    local target, has_token = without_token(url)
    if has_token then txn.http:req_set_uri(target) end
    if txn:get_var("txn.preflight") then return end
    -- Only what the check needs: the edge rejects a header section over 16 KiB.
    local answer = core.httpclient():get {
        url = edge,
        headers = {
            ["authorization"] = values(sent, "authorization"),
            ["referer"] = values(sent, "referer"),
            ["x-forwarded-for"] = { txn.f:src() },
            ["x-forwarded-uri"] = has_token and { url } or nil,
        },
        timeout = timeout_ms,
    }
    -- What the edge answers has an X-Request-Id. Anything else is HAProxy's own error.
    if not answer or not answer.headers or not answer.headers["x-request-id"] then answer = unavailable end
    if answer.status == 200 then
        for _, name in ipairs(identity) do
            txn.http:req_set_header(name, values(answer.headers, name)[1] or "")
        end
        for variable, name in pairs({ rate_limit = "ratelimit", rate_limit_policy = "ratelimit-policy" }) do
            local value = values(answer.headers, name)[1]
            if value then txn:set_var("txn." .. variable, value) end
        end
        return
    end
    local reply = txn:reply({ status = answer.status, body = not is_head and answer.body or nil })
    for _, name in ipairs(passed_on) do
        for _, value in ipairs(values(answer.headers, name)) do reply:add_header(name, value) end
    end
    txn:done(reply)
end)
