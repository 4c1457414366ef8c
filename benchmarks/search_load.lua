-- The requests of benchmarks/search_load.py. From the environment: MODE, NEW ("1": no query comes twice), and FILES with
-- a path a line: of a text with a title a line for text modes, of pictures for the others.
local mode, is_new = os.getenv("MODE"), os.getenv("NEW") == "1"
local is_picture = mode:sub(1, 5) == "image"
local queries = {}
for path in io.lines(os.getenv("FILES")) do
  if is_picture then
    local file = assert(io.open(path, "rb"))
    queries[#queries + 1] = file:read("*a")
    file:close()
  else
    for line in io.lines(path) do queries[#queries + 1] = line end
  end
end
math.randomseed(os.time())

local boundary = "----tuwen"
local function form(picture)
  return "--" .. boundary .. "\r\nContent-Disposition: form-data; name=\"mode\"\r\n\r\n" .. mode
    .. "\r\n--" .. boundary .. "\r\nContent-Disposition: form-data; name=\"image\"; filename=\"query\"\r\n"
    .. "Content-Type: application/octet-stream\r\n\r\n" .. picture .. "\r\n--" .. boundary .. "--\r\n"
end

request = function()
  local query = queries[math.random(#queries)]
  if is_new then query = query .. math.random(1000000000) end -- what follows a picture's end changes nothing but its hash
  if is_picture then
    return wrk.format("POST", "/search", { ["Content-Type"] = "multipart/form-data; boundary=" .. boundary }, form(query))
  end
  local body = '{"mode":"' .. mode .. '","text":"' .. query .. '","top_k":10}'
  return wrk.format("POST", "/search", { ["Content-Type"] = "application/json" }, body)
end

done = function(summary, latency, _)
  io.write(string.format("RESULT %d %d %.2f %.2f %.2f %.2f %d\n", summary.requests, summary.duration, latency.mean / 1000,
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000,
    summary.errors.status + summary.errors.timeout + summary.errors.connect + summary.errors.read))
end
