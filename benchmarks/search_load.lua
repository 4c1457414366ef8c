-- The requests of benchmarks/search_load.py. From the environment: MODES, one of which each request takes, with commas
-- between them; TEXTS and PICTURES, files with a title or a picture's path a line; DRAW: "new" (no query comes twice),
-- "known" (each as often as any other), "zipf" (the k-th with a share of 1/k); API_KEY, if the service needs one.
local modes = {}
for mode in os.getenv("MODES"):gmatch("[^,]+") do modes[#modes + 1] = mode end
local draw = os.getenv("DRAW")
local texts, pictures = {}, {}
for line in io.lines(os.getenv("TEXTS")) do texts[#texts + 1] = line end
for path in io.lines(os.getenv("PICTURES")) do
  local file = assert(io.open(path, "rb"))
  pictures[#pictures + 1] = file:read("*a")
  file:close()
end
math.randomseed(os.time())

local function shares_summed(count)
  local sums, sum = {}, 0
  for k = 1, count do
    sum = sum + 1 / k
    sums[k] = sum
  end
  return sums
end
local sums_of = { [texts] = shares_summed(#texts), [pictures] = shares_summed(#pictures) }

local function one_of(queries)
  if draw ~= "zipf" then return queries[math.random(#queries)] end
  local sums = sums_of[queries]
  local wanted, low, high = math.random() * sums[#sums], 1, #sums
  while low < high do
    local middle = math.floor((low + high) / 2)
    if sums[middle] < wanted then low = middle + 1 else high = middle end
  end
  return queries[low]
end

local boundary = "----tuwen"
local function form(mode, picture)
  return "--" .. boundary .. "\r\nContent-Disposition: form-data; name=\"mode\"\r\n\r\n" .. mode
    .. "\r\n--" .. boundary .. "\r\nContent-Disposition: form-data; name=\"image\"; filename=\"query\"\r\n"
    .. "Content-Type: application/octet-stream\r\n\r\n" .. picture .. "\r\n--" .. boundary .. "--\r\n"
end

local key = os.getenv("API_KEY")
local function headers(content_type)
  return { ["Content-Type"] = content_type, ["X-API-Key"] = key ~= "" and key or nil }
end

request = function()
  local mode = modes[math.random(#modes)]
  local is_picture = mode:sub(1, 5) == "image"
  local query = one_of(is_picture and pictures or texts)
  if draw == "new" then query = query .. math.random(1000000000) end -- what follows a picture's end changes nothing but its hash
  if is_picture then
    return wrk.format("POST", "/search", headers("multipart/form-data; boundary=" .. boundary), form(mode, query))
  end
  local body = '{"mode":"' .. mode .. '","text":"' .. query .. '","top_k":10}'
  return wrk.format("POST", "/search", headers("application/json"), body)
end

done = function(summary, latency, _)
  io.write(string.format("RESULT %d %d %.2f %.2f %.2f %.2f %d\n", summary.requests, summary.duration, latency.mean / 1000,
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000,
    summary.errors.status + summary.errors.timeout + summary.errors.connect + summary.errors.read))
end
