-- Asks Tallystick whether a request may pass; sets the X-Token headers, or answers the refusal.
local edge = "http://127.0.0.1:3000/auth?scope=orders"
local identity = { "x-token-id", "x-token-account", "x-token-scopes" }

local function all(values)
    local found = {}
    for index = 0, #(values or {}) do
        if values and values[index] then found[#found + 1] = values[index] end
    end
    return found
end

core.register_action("tallystick", { "http-req" }, function(txn)
    local sent = txn.http:req_get_headers()
    local answer = core.httpclient():get {
        url = edge,
        headers = {
            ["authorization"] = all(sent["authorization"]),
            ["referer"] = all(sent["referer"]),
            ["x-forwarded-for"] = { txn.f:src() },
            ["x-forwarded-uri"] = { txn.f:url() },
        },
        timeout = 2000,
    }
    local status = answer and answer.status or 503
    if status == 0 then status = 503 end
    for _, name in ipairs(identity) do txn.http:req_del_header(name) end
    if status == 200 then
        for _, name in ipairs(identity) do
            txn.http:req_set_header(name, (answer.headers[name] or {})[0] or "")
        end
        txn.http:req_del_header("authorization")
        return
    end
    local reply = txn:reply({ status = status })
    for _, name in ipairs({ "www-authenticate", "retry-after" }) do
        local value = answer and answer.headers and (answer.headers[name] or {})[0]
        if value then reply:add_header(name, value) end
    end
    txn:done(reply)
end)
