-- escalate <key> <reason> <payload> <severity> <trace>
local function verb()
  local raised, wrong =
    escalate { key = ARGV[5], reason = ARGV[6], payload = ARGV[7], severity = ARGV[8], trace = ARGV[9] }
  return wrong or { 'ok', raised }
end
