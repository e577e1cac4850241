-- publish <n> (<topic> <key> <fingerprint> <id> <attributes> <data>)*
local function verb()
  local answers, wrong = publish((read_events(5)))
  return wrong or { 'ok', answers }
end
