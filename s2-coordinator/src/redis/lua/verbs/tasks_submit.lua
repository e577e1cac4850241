-- tasks_submit <n> (<head> <requires> <entry> <text>)*
local function verb()
  open()
  begin_queues()
  local plans, wrong = plan_tasks(ARGV, 6, tonumber(ARGV[5]), 0, 0)
  return wrong or { 'ok', (accept(plans)) }
end
