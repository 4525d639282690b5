-- What APISIX does around the filter, in its order and phases, and plain Lua in the filter's place.
-- `Gateway` in nginx_gateway.py writes `routes` (from apisix.yaml) and calls the functions below from the places in nginx.conf
-- from which APISIX calls its own.
local balancer = require "ngx.balancer"
local routes = require "routes"

local M = {}

-- The context lives on through ngx.exec, which empties ngx.ctx.
local stashed, next_reference = {}, 0

-- Lua functions of the serverless plugins, compiled once, as APISIX does.
local compiled = {}
local function run(route, plugin, phase)
    local conf = route.plugins[plugin]
    if not conf or conf.phase ~= phase then
        return
    end
    for _, text in ipairs(conf.functions) do
        compiled[text] = compiled[text] or assert(loadstring(text))()
        compiled[text](conf, ngx.ctx)
    end
end

-- The filter's stand-in. A router plans what the header `test-plan` says. An attempt writes its provider's name before
-- the body, and lets every status out; a provider's header `test-next` is the one whom it names.
local filter = {}

function filter.request(hop)
    ngx.var.upstream_uri = ngx.var.request_uri
    if hop == "-" then
        local query = ngx.var.args or ""
        if query:find("key=", 1, true) then
            ngx.status = 400
            ngx.say("{}")
            return ngx.exit(400)
        end
        -- A completion: no provider gets its query.
        ngx.var.upstream_uri = ngx.var.uri
        ngx.req.set_header("x-shunt-plan", ngx.var.http_test_plan)
        ngx.req.set_header("x-shunt-inner", "secret")
        ngx.req.clear_header("x-shunt-tries")
        ngx.var.shunt_audit = '{"path":"' .. ngx.var.uri .. '","said":"\\"é\\""}'
        return
    end
    ngx.var.upstream_host = hop .. ".test"
    if ngx.var.http_test_rewrite then
        ngx.req.read_body()
        local body = ngx.req.get_body_data()
        if not body then
            local name = ngx.req.get_body_file()
            local file = name and io.open(name, "rb")
            body = file and file:read("*a") or ""
            if file then file:close() end
        end
        ngx.var.shunt_body = hop .. ":" .. body
    end
end

function filter.response_headers(hop)
    local typed = ngx.var.upstream_http_test_type
    if hop ~= "-" and typed == "removed" then
        ngx.header["content-type"] = nil
    elseif hop == "-" and typed then
        ngx.header["content-type"] = "text/event-stream"
    end
    if hop ~= "-" and ngx.status < 200 then
        -- What came is not HTTP: nginx writes no head, so the filter's comes in the body's place.
        local try = hop .. " test - 0 -"
        ngx.var.shunt_cut = "HTTP/1.1 502 -\r\nx-shunt-try: " .. try .. "\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ngx.header["x-shunt-try"] = try
        ngx.status = 502
    elseif hop ~= "-" then
        ngx.header["x-shunt-try"] = hop .. " test " .. ngx.status .. " 0 " .. (ngx.var.upstream_http_test_next or "-")
    else
        ngx.header["x-test-statuses"] = ngx.var.upstream_status
        ngx.header["x-test-tries"] = ngx.var.shunt_tries
    end
    if ngx.var.upstream_http_test_chunks and hop == "-" then
        ngx.header["content-length"] = nil
        ngx.var.shunt_chunks = "1"
    end
end

-- What a test looks at.
local function mark(hop)
    ngx.header["x-test-hop-" .. (hop == "-" and "router" or "attempt")] = hop
    ngx.header["test-chunks"] = ngx.var.upstream_http_test_chunks
end

function filter.response_body(hop)
    -- After the piece that the provider's header names.
    if hop ~= "-" and ngx.arg[1] == ngx.var.upstream_http_test_cut then
        ngx.var.shunt_cut = "1"
    end
    if ngx.var.shunt_chunks ~= "1" then
        return
    end
    local chunk, last = ngx.arg[1], ngx.arg[2]
    if hop == "-" then
        chunk = chunk:gsub("%[", "<"):gsub("%]", ">")
        ngx.var.shunt_chunk = last and chunk .. "router's end" or chunk
    end
end

local function set_timeouts(route)
    local timeout = route.upstream.timeout
    assert(balancer.set_timeouts(timeout.connect, timeout.send, timeout.read))
end

-- location /
function M.access()
    local hop = ngx.var.shunt_hop
    local route = routes[hop]
    -- Every route of apisix.yaml is one for /v1/*.
    if not route or not ngx.var.uri:find("^/v1/") then
        ngx.status = 404
        ngx.header["x-test-hop-attempt"] = hop
        ngx.say('{"error_msg":"404 Route Not Found"}')
        return ngx.exit(404)
    end
    ngx.ctx.hop, ngx.ctx.route, ngx.ctx.try = hop, route, 1
    -- access
    filter.request(hop)
    run(route, "serverless-post-function", "access")
    -- A node is picked.
    ngx.var.upstream_scheme = route.upstream.scheme
    if route.upstream.pass_host == "node" then
        ngx.var.upstream_host = route.upstream.nodes[1].host .. ":" .. route.upstream.nodes[1].port
    end
    run(route, "serverless-pre-function", "before_proxy")
    if route.plugins["proxy-buffering"].disable_proxy_buffering then
        next_reference = next_reference + 1
        stashed[tostring(next_reference)] = ngx.ctx
        ngx.var.ctx_ref = next_reference
        return ngx.exec("@disable_proxy_buffering")
    end
end

-- location @disable_proxy_buffering
function M.fetch()
    local reference = ngx.var.ctx_ref
    ngx.ctx, stashed[reference] = stashed[reference], nil
end

function M.balancer()
    local ctx = ngx.ctx
    local route = ctx.route
    if not ctx.proxied then
        ctx.proxied = true
        set_timeouts(route)
        if route.upstream.retries > 0 then
            assert(balancer.set_more_tries(route.upstream.retries))
        end
    else
        ctx.try = ctx.try + 1
        local node = route.upstream.nodes[ctx.try]
        if not node then
            return ngx.exit(502)
        end
        if route.upstream.pass_host == "node" then
            ngx.var.upstream_host = node.host .. ":" .. node.port
        end
        run(route, "serverless-pre-function", "before_proxy")
        assert(balancer.recreate_request())
    end
    local node = route.upstream.nodes[ctx.try]
    assert(balancer.set_current_peer(node.host, node.port))
end

function M.header_filter()
    if ngx.ctx.route then
        filter.response_headers(ngx.ctx.hop)
        mark(ngx.ctx.hop)
    end
end

function M.body_filter()
    if ngx.ctx.route then
        run(ngx.ctx.route, "serverless-pre-function", "body_filter")
        filter.response_body(ngx.ctx.hop)
        run(ngx.ctx.route, "serverless-post-function", "body_filter")
    end
end

return M
