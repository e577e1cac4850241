-- publish <n> (<topic> <head> <text>)*
local function verb()
  local answers, wrong = publish(ARGV, 6, tonumber(ARGV[5]))
  return wrong or { 'ok', answers }
end
